"""Which events Celery's receivers can take: monitors keep and sort what is in them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explain"]

#: Fields that are text, where they are there at all.
_TEXTS: Final = ("uuid", "name", "parent_id", "root_id")
#: Fields that are numbers, and how large they may be: monitors show times, and sort by the clock.
_NUMBERS: Final = {
    "timestamp": 250_000_000_000,  # the year 9892
    "utcoffset": 48,
    **dict.fromkeys(("clock", "pid", "runtime", "retries", "freq", "active", "processed"), 2**63),
}


def explain(event: Any) -> str:
    """Say what is wrong with an event; "" if nothing is."""
    if not isinstance(event, dict):
        return f"an event is a dictionary, this is {type(event).__name__}"
    return next(_find_faults(event), "")


def _find_faults(event: dict[str, Any]) -> Iterator[str]:
    for name in ("type", "hostname"):
        if not isinstance(event.get(name), str):
            yield f"its {name} is no text"
    needed = ("timestamp", "uuid") if event["type"].startswith("task-") else ("timestamp",)
    yield from (f"it has no {name}" for name in needed if event.get(name) is None)
    for name in _TEXTS:
        if not isinstance(event.get(name), (str, type(None))):
            yield f"its {name} is no text"
    for name, largest in _NUMBERS.items():
        value = event.get(name)
        if value is not None and not (isinstance(value, (int, float)) and abs(value) <= largest):
            yield f"its {name} is no number, or not a possible one"
