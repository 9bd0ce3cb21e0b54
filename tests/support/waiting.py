"""Waiting in tests: for a condition, never for a duration. The one place that may sleep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["never", "wait_until"]

T = TypeVar("T")

#: A busy CI machine gets more time; a passing test never waits that long.
DEFAULT_TIMEOUT_SECONDS = 10.0 if os.environ.get("CI") else 3.0
_POLL_SECONDS = 0.01


def wait_until(
    condition: Callable[[], T], *, timeout: float | None = None, what: str = ""
) -> T:
    """Return the first true value of ``condition``; fail the test after ``timeout`` seconds."""
    seconds = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(_POLL_SECONDS)  # noqa: TID251 - the one place


def never(condition: Callable[[], object], *, for_: float, what: str = "") -> None:
    """Fail the test if ``condition`` becomes true within ``for_`` seconds."""
    until = time.monotonic() + for_
    while time.monotonic() < until:
        assert not condition(), f"must not happen: {what or condition}"
        time.sleep(_POLL_SECONDS)  # noqa: TID251 - the one place
