"""How many messages a queue keeps here: running, and ready so that no slot waits for one. Pure.

A settled message is replaced one refill later: the acknowledgement travels to the server, the next
message back. Until then the handler lives on what is buffered, so that should be as many as it
works through in the meantime. Both are measured. Whether the buffer is too small shows by itself: a
slot is free, nothing is ready, and the server sends no more because the limit is reached. Then the
limit is doubled, up to what the measurements allow.
"""

from __future__ import annotations

import math

__all__ = ["Average", "Supply"]

#: What waits here is worked through in about this time, unless it is one message.
_MOST_SECONDS = 1.0
#: Twice what a refill's mean duration takes: half of the refills take longer.
_MARGIN = 2.0
#: Weight of the newest of the measurements.
_WEIGHT = 0.1


class Average:
    """A mean in which old values fade. 0 before the first one."""

    def __init__(self) -> None:
        self.value = 0.0
        self._is_empty = True

    def add(self, value: float) -> None:
        """Take a value into account."""
        if self._is_empty:
            self.value, self._is_empty = value, False
        else:
            self.value += _WEIGHT * (value - self.value)


class Supply:
    """The limit of one queue. ``buffer`` None: it follows from what is measured."""

    def __init__(self, concurrency: int, buffer: int | None) -> None:
        self.concurrency = concurrency
        self._is_adaptive = buffer is None
        self._buffer = 1 if buffer is None else buffer
        #: From an acknowledgement here to the server's answer: as long as the next message takes.
        self._refill = Average()
        self._run = Average()
        self._wait = Average()

    @property
    def limit(self) -> int:
        """Messages that may be here at a time, running and ready."""
        return self.concurrency + self._buffer

    def add_refill(self, seconds: float) -> None:
        """Take into account how long an acknowledgement took."""
        self._refill.add(seconds)

    def add_run(self, seconds: float) -> None:
        """Take into account how long a message had its slot."""
        self._run.add(seconds)

    def add_wait(self, seconds: float) -> None:
        """Take into account how long a message was ready before it had a slot; shrink if too long.

        Ready messages of a handler that has become slower are for others to have.
        """
        self._wait.add(seconds)
        if self._is_adaptive and self._buffer > 1 and self._wait.value > _MOST_SECONDS:
            self._buffer = max(1, int(self._buffer * _MOST_SECONDS / self._wait.value))
            self._wait = Average()

    def starve(self) -> bool:
        """Double the limit because a slot is idle for want of messages; False: it stays."""
        if not self._is_adaptive:
            return False
        rate = self.concurrency / max(self._run.value, 1e-6)
        most = min(rate * _MOST_SECONDS, _MARGIN * rate * self._refill.value)
        buffer = max(1, min(2 * self.limit - self.concurrency, math.ceil(most)))
        if buffer <= self._buffer:
            return False
        self._buffer = buffer
        return True
