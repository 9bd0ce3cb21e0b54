"""``convotic dlq``: List, group, replay, edit and delete dead letters."""

from __future__ import annotations

import click

from convotic_celery.cli.dlq import acting, changing, looking
from convotic_celery.cli.group import GuessingGroup
from convotic_celery.cli.options import examples

__all__ = ["command"]


@click.group(
    "dlq",
    cls=GuessingGroup,
    epilog=examples(
        "convotic dlq groups",
        "convotic dlq list --handler custom.orders.new.shop",
        "convotic dlq replay --group 5f1c",
    ),
)
def command() -> None:
    """Dead letters: messages that a handler could not process.

    Look with list, groups and show; fix with replay, edit and redirect. --group, --handler, --error
    and the like choose those to which all of them apply; an ID is a dead letter's or its message's.
    """


for each in (*looking.COMMANDS, *acting.COMMANDS, *changing.COMMANDS):
    command.add_command(each)
