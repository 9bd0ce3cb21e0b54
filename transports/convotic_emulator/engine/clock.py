"""Time for the server: one clock, in microseconds since the epoch, that tests can move."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SECOND_US", "Clock", "ManualClock", "RunningClock", "SystemClock"]

SECOND_US = 1_000_000


class Clock(Protocol):
    """Where the server takes its time from. Never goes back."""

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        ...


class SystemClock:
    """Wall-clock time at start, monotonic from then on: a changed system time moves no lease."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        return (time.monotonic_ns() + self._offset_ns) // 1000


class ManualClock:
    """A clock that stands still until :meth:`advance` is called; for tests.

    ``on_advance`` listeners run in the caller's thread after each move.
    """

    def __init__(self, start_us: int = 1_800_000_000 * SECOND_US) -> None:
        self._now_us = start_us
        self.on_advance: list[Callable[[], None]] = []

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move time forward by ``seconds`` (>= 0)."""
        if seconds < 0:
            raise ValueError(f"a clock can't go back: advance({seconds})")
        self._now_us += round(seconds * SECOND_US)
        for listener in list(self.on_advance):
            listener()


class RunningClock(ManualClock):
    """Wall-clock time that :meth:`advance` moves ahead; for tests of clients with own timers."""

    def __init__(self) -> None:
        super().__init__(start_us=0)
        self._clock = SystemClock()

    def now_us(self) -> int:
        """Return microseconds since the epoch, and what was advanced."""
        return self._clock.now_us() + self._now_us
