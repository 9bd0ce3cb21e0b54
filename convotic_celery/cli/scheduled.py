"""``convotic scheduled``: List and cancel delayed messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from convotic_celery.cli.columns import align
from convotic_celery.cli.group import GuessingGroup
from convotic_celery.cli.options import (
    TOPIC,
    examples,
    json_option,
    limit_option,
    open_app,
    show_duration,
)

if TYPE_CHECKING:
    from convotic_celery.context.scheduled_listing import DelayedMessage

__all__ = ["command"]

_PAGE = 1000
#: Of a message's data in a line.
_DATA_WIDTH = 60


@click.group(
    "scheduled",
    cls=GuessingGroup,
    epilog=examples("convotic scheduled list", "convotic scheduled cancel scheduled-0199…"),
)
def command() -> None:
    """Messages published with a delay, which wait in the store until a worker publishes them."""


@command.command("list", epilog=examples("convotic scheduled list --topic custom.orders.remind"))
@click.option("--topic", type=TOPIC, help="Only messages to this topic.")
@limit_option(50)
@json_option
def list_scheduled(topic: str | None, limit: int, as_json: bool) -> None:
    """List the waiting messages, the next one due first."""
    with open_app() as app:
        schedule = app.services.sync_schedule
        found: list[DelayedMessage] = []
        cursor: str | None = None
        while len(found) < limit:
            total, page = schedule.list(limit=_PAGE, cursor=cursor)
            found += [each for each in page.items if topic in {None, each.topic}]
            cursor = page.next_cursor
            if cursor is None:
                break
    shown = found[:limit]
    if as_json:
        messages = [each.model_dump(mode="json") for each in shown]
        click.echo(json.dumps({"waiting": total, "messages": messages}, indent=2))
        return
    if not shown:
        click.echo("No message waits." if topic is None else f"No message to {topic} waits.")
        return
    now = datetime.now(UTC)
    rows = [(each.id, _describe_due(each, now), each.topic, _cut(each.data)) for each in shown]
    click.echo(align(("schedule id", "due", "topic", "data"), rows))
    if len(shown) < total:
        click.echo(f"{len(shown)} of {total:,} that wait; --limit shows more.", err=True)


@command.command("cancel", epilog=examples("convotic scheduled cancel scheduled-0199…"))
@click.argument("schedule_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def cancel(schedule_ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel waiting messages. Exit code 1 if one did not wait any more."""
    from convotic_celery.context.scheduled import check_schedule_id

    for schedule_id in schedule_ids:
        try:
            check_schedule_id(schedule_id)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="ID") from None
    with open_app() as app:
        pubsub = app.services.sync_pubsub()
        cancelled = {each: pubsub.cancel(each) for each in schedule_ids}
    if as_json:
        click.echo(json.dumps(cancelled, indent=2))
    else:
        for each, done in cancelled.items():
            state = "cancelled" if done else "does not wait: published, cancelled or never there"
            click.echo(f"{each}  {state}")
    return 0 if all(cancelled.values()) else 1


def _describe_due(message: DelayedMessage, now: datetime) -> str:
    seconds = (message.due_at - now).total_seconds()
    return f"in {show_duration(seconds)}" if seconds > 0 else "now"


def _cut(text: str) -> str:
    return text if len(text) <= _DATA_WIDTH else f"{text[: _DATA_WIDTH - 1]}…"
