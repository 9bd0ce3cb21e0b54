"""``edit``, ``archive``, ``restore`` and ``sync`` of ``convotic dlq``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.columns import align, plain
from convotic_celery.cli.dlq.choosing import AS_JSON, BY, choose, dead_letters, match_or_refuse
from convotic_celery.cli.options import examples
from convotic_celery.dead_letters.payload_text import payload_text

if TYPE_CHECKING:
    from convotic_celery.dead_letters import DeadLetter

__all__ = ["COMMANDS"]


@click.command(
    "edit",
    short_help="Change the data that the next replay publishes.",
    epilog=examples(
        "convotic dlq edit 28c765fadd01a2b3",
        "convotic dlq edit 28c765fadd01a2b3 --file fixed.json --dry-run",
        "convotic dlq edit 28c765fadd01a2b3 --original",
    ),
)
@click.argument("entry", metavar="ID")
@click.option("--data", metavar="JSON", help="The new data.")
@click.option("--file", type=click.File("rb"), help="A file with the new data; - is stdin.")
@click.option(
    "--original", is_flag=True, help="Undo edits: the next replay publishes the original."
)
@click.option("--force", is_flag=True, help="Also what the handler can't read.")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@BY
@AS_JSON
def edit_command(  # noqa: PLR0917 - click gives each option by name
    entry: str,
    data: str | None,
    file: Any,
    original: bool,
    force: bool,
    dry_run: bool,
    by: str,
    as_json: bool,
) -> None:
    """Change the data that the next replay of ID publishes; show the difference.

    Without --data, --file and --original an editor opens. The original is kept.
    """
    if sum((data is not None, file is not None, original)) > 1:
        raise click.UsageError("Choose one of --data, --file and --original.")
    with dead_letters() as found:
        dead = found.show(entry)
        new: bytes | None
        if original:
            new = None
        elif data is not None:
            new = data.encode()
        elif file is not None:
            new = file.read()
        else:
            new = _open_editor(dead)
        diff = found.edit(entry, new, by=by, check=not force, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"id": dead.id, "difference": diff, "dry_run": dry_run}))
    else:
        click.echo(plain(diff) or "nothing differs from the original")


def _open_editor(dead: DeadLetter) -> bytes:
    if dead.edited is None and dead.payload != "full":
        kept = "no copy" if dead.payload == "none" else "only the beginning"
        raise click.UsageError(f"The store has {kept} of the data: pass it with --data or --file.")
    data = dead.data or b"" if dead.edited is None else dead.edited
    text = payload_text(data)
    if text is None:
        raise click.UsageError("The data is not UTF-8 text: pass the new data with --file.")
    edited = click.edit(text, extension=".json")
    if edited is None:
        raise click.Abort
    # An editor ends the last line.
    return data if edited.strip() == text.strip() else edited.strip().encode()


@click.command("archive", epilog=examples("convotic dlq archive --group 9d38af8389a5"))
@choose()
@click.option("--all", "everything", is_flag=True, help="Choose all; needs no ID or condition.")
@click.option(
    "--missing",
    is_flag=True,
    help="Choose among those whose message is missing, not the open ones.",
)
@click.option("--dry-run", is_flag=True, help="Say how many, and do nothing.")
@BY
@AS_JSON
def archive_command(
    everything: bool, missing: bool, dry_run: bool, by: str, as_json: bool, **filters: Any
) -> None:
    """Hide dead letters; `restore` undoes it. Their messages stay until they expire."""
    state = "missing" if missing else "open"
    match = match_or_refuse({**filters, "state": state}, everything=everything)
    with dead_letters() as found:
        count = found.count(match) if dry_run else found.archive(match, by=by)
    _say(count, "archived", dry_run, as_json)


@click.command("restore", epilog=examples("convotic dlq restore --group 9d38af8389a5"))
@choose()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Choose all; needs no ID or condition.",
)
@click.option("--dry-run", is_flag=True, help="Say how many, and do nothing.")
@BY
@AS_JSON
def restore_command(
    everything: bool, dry_run: bool, by: str, as_json: bool, **filters: Any
) -> None:
    """Undo `convotic dlq archive`."""
    match = match_or_refuse({**filters, "state": "archived"}, everything=everything)
    with dead_letters() as found:
        count = found.count(match) if dry_run else found.restore(match, by=by)
    _say(count, "restored", dry_run, as_json)


def _say(count: int, done: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({done: count, "dry_run": dry_run}))
    else:
        click.echo(f"{count:,} would be {done}" if dry_run else f"{count:,} {done}")


@click.command("sync", epilog=examples("convotic dlq sync --handler custom.orders.new.shop"))
@click.option("--handler", default="", metavar="QUEUE", help="Only of this handler.")
@AS_JSON
@BY
def sync_command(handler: str, as_json: bool, by: str) -> None:
    """Bring the index in line with the dead-letter subscriptions.

    Adds entries for messages that have none, such as those that Pub/Sub has forwarded itself,
    acknowledges what was replayed or purged, and marks entries whose message is missing.
    """
    with dead_letters() as found:
        reports = found.sync(handler, by=by)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in reports], indent=2))
        return
    rows = [
        (
            each.handler,
            f"{each.seen:,}",
            f"{each.taken_in:,}",
            f"{each.acknowledged:,}",
            f"{each.missing:,}" if each.is_complete else "not known: others hold some",
        )
        for each in reports
    ]
    header = ("handler", "messages", "without entry", "done with", "without message")
    click.echo(align(header, rows))


COMMANDS = (edit_command, archive_command, restore_command, sync_command)
