"""Wait for a condition, never for a duration.

One constant says how long is too long. It is generous, since only a test that fails waits that
long: a machine that does other things needs ten times as long as one that does not.

A condition is looked at less often the longer it is waited for: many are a request, and the server
that answers it hundreds of times a second takes the machine from what is waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar

__all__ = ["PATIENCE", "never", "never_async", "wait_until", "wait_until_async"]

#: Seconds that anything may take which normally takes a moment.
PATIENCE = 90.0
#: From look to look: a twentieth of the time waited so far, within these bounds.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.005, 0.1

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value], *, timeout: float = PATIENCE, what: str = ""
) -> Value:
    """Return the condition's first true value; fail with ``what`` when it stays false.

    The limit is ``timeout`` seconds, and never less than :data:`PATIENCE`. An exception of the
    condition is the caller's.
    """
    began = time.monotonic()
    while not (value := condition()):
        _check(began + max(timeout, PATIENCE), value, what)
        Event().wait(_pause(began))
    return value


async def wait_until_async(
    condition: Callable[[], Value | Awaitable[Value]],
    *,
    timeout: float = PATIENCE,  # noqa: ASYNC109  # named as in wait_until
    what: str = "",
) -> Value:
    """Do what :func:`wait_until` does in an event loop; the condition may be awaitable."""
    began = time.monotonic()
    while not (value := await _evaluate(condition)):
        _check(began + max(timeout, PATIENCE), value, what)
        await asyncio.sleep(_pause(began))
    return value


def never(condition: Callable[[], object], *, for_: float, what: str = "") -> None:
    """Fail as soon as the condition is true within ``for_``."""
    began = time.monotonic()
    while time.monotonic() < began + for_:
        value = condition()
        assert not value, f"{what or 'the condition'} became true: {value!r}"
        Event().wait(_pause(began))


async def never_async(
    condition: Callable[[], object | Awaitable[object]], *, for_: float, what: str = ""
) -> None:
    """Do what :func:`never` does in an event loop."""
    began = time.monotonic()
    while time.monotonic() < began + for_:
        value = await _evaluate(condition)
        assert not value, f"{what or 'the condition'} became true: {value!r}"
        await asyncio.sleep(_pause(began))


def _pause(began: float) -> float:
    waited = time.monotonic() - began
    return min(max(waited / 20, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)


def _check(deadline: float, value: object, what: str) -> None:
    if time.monotonic() >= deadline:
        raise AssertionError(f"{what or 'the condition'} stayed false; last value: {value!r}")


async def _evaluate(condition: Callable[[], Value | Awaitable[Value]]) -> Value:
    value = condition()
    if inspect.isawaitable(value):
        return await value
    return value
