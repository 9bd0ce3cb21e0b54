"""``list``, ``groups``, ``show``, ``export`` and ``log`` of ``convotic dlq``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.columns import align, json_text, plain
from convotic_celery.cli.dlq.choosing import AS_JSON, choose, dead_letters, match_of
from convotic_celery.cli.options import examples, limit_option
from convotic_celery.dead_letters.payload_text import indent_json
from convotic_pubsub.age import show_age

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_celery.dead_letters import DeadLetter, Group

__all__ = ["COMMANDS", "print_groups"]

_MAX_TEXT = 60


@click.command(
    "list",
    epilog=examples(
        "convotic dlq list --handler custom.orders.new.shop --newer-than 1h",
        "convotic dlq list --payload customer.city=Edinburgh --json",
    ),
)
@choose(states=True)
@limit_option(50, 1000)
@click.option(
    "--cursor", default="", help="Show the next page: the cursor that the last one printed."
)
@click.option("--no-payload", is_flag=True, help="Leave data and attributes out of the JSON.")
@AS_JSON
def list_command(limit: int, cursor: str, no_payload: bool, as_json: bool, **filters: Any) -> None:
    """List dead letters, newest first."""
    match = match_of(filters)
    with dead_letters() as found:
        page = found.list(match, limit=limit, cursor=cursor)
    if as_json:
        items = [each.to_json(with_payload=not no_payload) for each in page.items]
        head = {"total": page.total, "next_cursor": page.next_cursor, "is_sample": page.is_sample}
        click.echo(json_text({**head, "items": items}))
        return
    if not page.items:
        click.echo(f"No {match.state} dead letters match.", err=True)
    else:
        now = datetime.now(UTC)
        header = ("id", "age", "handler", "reason", "error", "again", "message")
        click.echo(align(header, [_row(each, now) for each in page.items]))
    if page.is_sample:
        click.echo(
            "The store is unavailable: these are some that Pub/Sub delivered, not all.", err=True
        )
    elif page.next_cursor:
        total = "" if page.total is None else f" of {page.total:,}"
        click.echo(f"{len(page.items)}{total}. The next: --cursor {page.next_cursor}", err=True)


def _row(dead: DeadLetter, now: datetime) -> tuple[str, ...]:
    return (
        dead.id,
        show_age((now - dead.dead_lettered_at).total_seconds()),
        dead.handler,
        dead.reason,
        _short(f"{dead.error_type}: {dead.error_message}" if dead.error_type else ""),
        str(dead.failed_again or ""),
        dead.message_id,
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 1]}…"


@click.command("groups", epilog=examples("convotic dlq groups --handler custom.orders.new.shop"))
@choose(states=True)
@AS_JSON
def groups_command(as_json: bool, **filters: Any) -> None:
    """Group dead letters by handler, reason, error and stack."""
    match = match_of(filters)
    with dead_letters() as found:
        groups = found.groups(match)
    if as_json:
        click.echo(json_text([each.to_json() for each in groups]))
    elif groups:
        print_groups(groups, match.state)
    else:
        click.echo(f"No {match.state} dead letters match.", err=True)


def print_groups(groups: Sequence[Group], state: Any) -> None:
    """Print a line for each group."""
    now = datetime.now(UTC)
    rows = [
        (
            group.id,
            f"{group.counts.get(state, 0):,}",
            str(group.failed_again or ""),
            show_age((now - group.last_at).total_seconds()),
            group.handler,
            group.reason,
            _short(f"{group.error_type}: {group.error_message}" if group.error_type else ""),
            group.stack[-1] if group.stack else "",
        )
        for group in groups
    ]
    header = ("group", state, "again", "last", "handler", "reason", "error", "raised in")
    click.echo(align(header, rows))


@click.command("show", epilog=examples("convotic dlq show 28c765fadd01a2b3"))
@click.argument("entry", metavar="ID")
@click.option("--no-payload", is_flag=True, help="Leave out data and attributes.")
@AS_JSON
def show_command(entry: str, no_payload: bool, as_json: bool) -> None:
    """Show one dead letter, by its id or its message's."""
    with dead_letters() as found:
        dead = found.show(entry)
    shown = dead.to_json(with_payload=not no_payload)
    if as_json:
        click.echo(json_text(shown))
        return
    for name, value in shown.items():
        if name not in {"data", "edited", "history", "attributes", "stack"} and value != "":
            _say(name.replace("_", " "), str(value))
    for name, value in shown.get("attributes", {}).items():
        _say("attribute", f"{name}={value}")
    for line in dead.stack:
        _say("at", line)
    for item in dead.history:
        what = " ".join((item.at.isoformat(timespec="seconds"), item.action, item.detail)).strip()
        _say("history", f"{what} by {item.by}")
    for name in ("data", "edited"):
        if shown.get(name) is not None:
            cut = " (the beginning)" if name == "data" and dead.payload == "preview" else ""
            click.echo(f"\n{name}{cut}:\n{plain(indent_json(shown[name]))}")


def _say(name: str, text: str) -> None:
    click.echo(f"{name:<18}{plain(text)}")


@click.command("export", epilog=examples("convotic dlq export --error ValueError -o dead.jsonl"))
@choose(states=True)
@click.option(
    "--output",
    "-o",
    type=click.File("w", encoding="utf-8"),
    default="-",
    metavar="FILE",
    help="Write to FILE instead of standard output.",
)
def export_command(output: Any, **filters: Any) -> None:
    """Write all that match as JSON, one a line."""
    match, count = match_of(filters), 0
    with dead_letters() as found:
        for dead in found.export(match):
            output.write(json_text(dead.to_json(), indent=None) + "\n")
            count += 1
    click.echo(f"{count:,} dead letters", err=True)


@click.command("log", epilog=examples("convotic dlq log --limit 10"))
@limit_option(50, 10_000)
@AS_JSON
def log_command(limit: int, as_json: bool) -> None:
    """Show who did what, newest first."""
    with dead_letters() as found:
        lines = found.log(limit)
    if as_json:
        click.echo(json_text(lines))
        return
    rows = [
        (line["at"][:19], line["by"], line["action"], line["count"], line["what"], line["job"])
        for line in lines
    ]
    click.echo(align(("at", "by", "action", "count", "what", "job"), rows))


COMMANDS = (list_command, groups_command, show_command, export_command, log_command)
