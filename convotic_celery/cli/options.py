"""What the commands share: durations, names that the shell completes, examples, an app to ask."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from convotic_celery.app import ConvoticApp
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = [
    "DURATION",
    "HANDLER",
    "TOPIC",
    "examples",
    "host_option",
    "json_option",
    "limit_option",
    "open_app",
    "port_option",
    "show_duration",
    "timeout_option",
]

F = TypeVar("F", bound="Callable[..., Any]")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds to wait for the workers' answers.",
)


def limit_option(default: int, most: int | None = None) -> Callable[[F], F]:
    """Return the option ``--limit``."""
    return click.option(
        "--limit",
        default=default,
        show_default=True,
        type=click.IntRange(1, most),
        help="At most this many.",
    )


def host_option(default: str, more: str = "") -> Callable[[F], F]:
    """Return the option ``--host``, which :func:`.listen` takes."""
    return click.option(
        "--host",
        default=default,
        show_default=True,
        help=f"Address to listen on; of a name, its IPv4 address if it has one.{more}",
    )


def port_option(default: int) -> Callable[[F], F]:
    """Return the option ``--port``."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="Port to listen on; 0: a free one.",
    )


class _Duration(click.ParamType[float]):
    """Seconds, or numbers with units: ``90``, ``1.5h``, ``1h30m``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        text = str(value).strip().replace(" ", "")
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
        if not re.fullmatch(r"\d*\.?\d+", text):
            wanted = "write 90, 30s, 5m, 1h, 1h30m or 2d."
            self.fail(f"{value!r} is not a duration: {wanted}", param, ctx)
        return float(text)


class _Name(click.ParamType[str]):
    """A name of the loaded modules, which the shell completes."""

    def __init__(self, name: str, attributes: tuple[str, ...]) -> None:
        self.name = name
        self._attributes = attributes

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so; none where the modules can't be loaded."""
        del ctx, param
        names = {getattr(each, a) for each in _find_handlers() for a in self._attributes}
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


DURATION = _Duration()
TOPIC = _Name("topic", ("topic",))
HANDLER = _Name("handler", ("queue",))


def _find_handlers() -> list[HandlerDefinition]:
    from convotic_celery.errors import ConvoticError
    from convotic_celery.modules import load_modules
    from convotic_celery.settings import Settings

    try:
        modules = load_modules(Settings(), on_fault=lambda _: None)
    except ConvoticError:
        return []
    return [handler for module in modules for handler in module.handlers]


def examples(*lines: str) -> str:
    """Return a command's epilog: each example in a line of its own, as it is typed."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def show_duration(seconds: float) -> str:
    """Return seconds as people say them: ``1 h 30 min``, ``12 s``."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown: Iterable[str] = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(list(shown)[:2]) or "0 s"


@contextmanager
def open_app() -> Iterator[ConvoticApp]:
    """Make the app of the environment's settings, and close it behind the block."""
    from convotic_celery.app import create_app
    from convotic_celery.settings import Settings

    app = create_app(Settings())
    try:
        yield app
    finally:
        app.close()
