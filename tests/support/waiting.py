"""Wait for a condition, never for a duration.

One function says how long is too long: 3 s on a developer's machine, 10 s where ``CI`` is set.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar

__all__ = ["never", "never_async", "scaled_timeout", "wait_until", "wait_until_async"]

#: A local machine answers within this; CI machines are shared.
LOCAL_SECONDS = 3.0
CI_SECONDS = 10.0
POLL_SECONDS = 0.005

Value = TypeVar("Value")


def scaled_timeout(factor: float = 1.0) -> float:
    """Return how long to wait for what normally takes no time; ``factor`` for what takes some."""
    return factor * (CI_SECONDS if os.environ.get("CI") else LOCAL_SECONDS)


def wait_until(
    condition: Callable[[], Value], *, timeout: float | None = None, what: str = ""
) -> Value:
    """Return the condition's first true value; fail with ``what`` when it stays false.

    ``timeout`` is in seconds, by default :func:`scaled_timeout`. An exception of the condition is
    the caller's.
    """
    deadline = time.monotonic() + (scaled_timeout() if timeout is None else timeout)
    while not (value := condition()):
        _check(deadline, value, what)
        Event().wait(POLL_SECONDS)
    return value


async def wait_until_async(
    condition: Callable[[], Value | Awaitable[Value]],
    *,
    timeout: float | None = None,  # noqa: ASYNC109  # named as in wait_until
    what: str = "",
) -> Value:
    """Do what :func:`wait_until` does in an event loop; the condition may be awaitable."""
    deadline = time.monotonic() + (scaled_timeout() if timeout is None else timeout)
    while not (value := await _evaluate(condition)):
        _check(deadline, value, what)
        await asyncio.sleep(POLL_SECONDS)
    return value


def never(condition: Callable[[], object], *, for_: float, what: str = "") -> None:
    """Fail as soon as the condition is true within ``for_``."""
    deadline = time.monotonic() + for_
    while time.monotonic() < deadline:
        value = condition()
        assert not value, f"{what or 'the condition'} became true: {value!r}"
        Event().wait(POLL_SECONDS)


async def never_async(
    condition: Callable[[], object | Awaitable[object]], *, for_: float, what: str = ""
) -> None:
    """Do what :func:`never` does in an event loop."""
    deadline = time.monotonic() + for_
    while time.monotonic() < deadline:
        value = await _evaluate(condition)
        assert not value, f"{what or 'the condition'} became true: {value!r}"
        await asyncio.sleep(POLL_SECONDS)


def _check(deadline: float, value: object, what: str) -> None:
    if time.monotonic() >= deadline:
        raise AssertionError(f"{what or 'the condition'} stayed false; last value: {value!r}")


async def _evaluate(condition: Callable[[], Value | Awaitable[Value]]) -> Value:
    value = condition()
    if inspect.isawaitable(value):
        return await value
    return value
