"""What the commands of ``convotic dlq`` share: choosing dead letters, who acts, and the app."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from convotic_celery.cli.options import DURATION, json_option, open_app

if TYPE_CHECKING:
    from convotic_celery.dead_letters import DeadLetters, Match

__all__ = [
    "AS_JSON",
    "BY",
    "choose",
    "dead_letters",
    "match_of",
    "match_or_refuse",
]

F = TypeVar("F", bound=Callable[..., Any])

STATES = ("open", "replayed", "archived", "missing", "purged")

AS_JSON = json_option


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user without a name
        return f"?@{socket.gethostname()}"


BY = click.option(
    "--by", default=_who, show_default="user@host", help="Your name in the action log."
)


class _Pair(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return name and value."""
        if isinstance(value, tuple):
            return value[0], value[1]
        name, separator, text = value.partition("=")
        if not separator or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


_FILTERS = (
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option("--handler", default="", metavar="QUEUE", help="Only of this handler."),
    click.option(
        "--group",
        default="",
        metavar="ID",
        help="Only of this group; `convotic dlq groups` lists them.",
    ),
    click.option("--reason", default="", help="Only with this reason, e.g. max-retries-exceeded."),
    click.option("--error", default="", help="Only with this error type; its last part is enough."),
    click.option("--text", default="", help="Only with this text in the error's message or stack."),
    click.option(
        "--attribute",
        "-a",
        "attributes",
        multiple=True,
        type=_Pair(),
        metavar="NAME=VALUE",
        help="Only with this attribute of the publisher's. Repeatable.",
    ),
    click.option(
        "--payload",
        "-p",
        multiple=True,
        type=_Pair(),
        metavar="PATH=VALUE",
        help="Only with this value in the payload: customer.city=Edinburgh, lines[0].sku=a-1. "
        "Repeatable.",
    ),
    click.option(
        "--older-than",
        type=DURATION,
        metavar="TIME",
        help="Only what failed this long ago or longer: 15m, 2h, 1d12h.",
    ),
    click.option(
        "--newer-than",
        type=DURATION,
        metavar="TIME",
        help="Only what failed within this time: 15m, 2h, 1d12h.",
    ),
)


def choose(*, states: bool = False) -> Callable[[F], F]:
    """Add the options that choose dead letters; their values are for :func:`match_of`."""
    state = click.option(
        "--state",
        type=click.Choice(STATES),
        default="open",
        show_default=True,
        help="Only those in this state.",
    )

    def add(function: F) -> F:
        for option in reversed((*_FILTERS, *((state,) if states else ()))):
            function = option(function)
        return function

    return add


def match_of(filters: dict[str, Any]) -> Match:
    """Return what the options choose."""
    from convotic_celery.dead_letters import Match

    attributes, payload = dict(filters.pop("attributes")), dict(filters.pop("payload"))
    return Match(attributes=attributes, payload=payload, **filters)


def match_or_refuse(filters: dict[str, Any], *, everything: bool) -> Match:
    """Return what the options choose; to act on all takes ``--all``."""
    match = match_of(filters)
    if match == type(match)(state=match.state) and not everything:
        raise click.UsageError(
            "Which ones? Name ids, choose with --group, --handler, --error and the like, or say "
            "--all."
        )
    return match


@contextmanager
def dead_letters() -> Iterator[DeadLetters]:
    """Yield the dead letters of the app that the environment describes."""
    with open_app() as app:
        yield app.dead_letters
