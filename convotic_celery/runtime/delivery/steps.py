"""What a run does outside of itself, as values: a run is written once for async and plain code.

A run's parts are generators that yield these; :func:`drive_async` or :func:`drive_sync` does each
and sends back its answer, or throws its error.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from convotic_celery.context.scripts import Script

__all__ = ["Ask", "AsyncDoer", "Pause", "Steps", "SyncDoer", "drive_async", "drive_sync"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Run this script on the store; raises StoreUnavailable."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long."""

    seconds: float


#: Any: a run has steps of its own beside these.
Steps: TypeAlias = Generator[Any, Any, T]


class AsyncDoer(Protocol):
    """Does steps on the running loop."""

    def do_async(self, step: Any) -> Coroutine[Any, Any, Any]:
        """Return what does one, and its answer."""
        ...


class SyncDoer(Protocol):
    """Does steps in the calling thread."""

    def do_sync(self, step: Any) -> Any:
        """Do one and return its answer."""
        ...


async def drive_async(steps: Steps[T], doer: AsyncDoer) -> T:
    """Do the steps on the running loop."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await doer.do_async(step)
            except BaseException as error:  # noqa: BLE001 - also a cancellation: steps clean up
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def drive_sync(steps: Steps[T], doer: SyncDoer) -> T:
    """Do the steps in this thread."""
    try:
        step = next(steps)
        while True:
            try:
                answer = doer.do_sync(step)
            except BaseException as error:  # noqa: BLE001 - as in drive_async
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
