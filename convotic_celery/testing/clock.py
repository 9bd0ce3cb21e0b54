"""A clock that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["MovingClock"]


class MovingClock:
    """The clock of publishing and of retries.

    The store's expiry, a handler's ack deadline and its sleeps use real time.
    """

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)

    def now(self) -> datetime:
        """Return the time; timezone-aware, UTC."""
        return self._now

    def advance(self, duration: float | timedelta) -> None:
        """Move on by seconds or a timedelta; never back."""
        moved = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
        if moved < timedelta(0):
            raise ValueError(f"a clock can't go back: {duration!r}")
        self._now += moved

    def move_to(self, when: datetime) -> None:
        """Move on to a time; one that is past is now."""
        self._now = max(self._now, when)
