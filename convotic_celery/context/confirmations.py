"""Waiting on an event loop for what another thread confirms.

``asyncio.wrap_future`` with ``shield`` and ``wait_for`` does the same for one future, with a timer
and a wake-up of the loop for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_pubsub.outgoing import Answer

__all__ = ["wait_for", "wait_for_all"]

#: True: there is an answer; False: the time is over.
_Watched: TypeAlias = "asyncio.Future[bool]"


class _Waiting:
    """What one loop waits for.

    Whatever other threads confirm meanwhile wakes the loop once, and all limits share one timer.
    Each wait is two entries of dictionaries: of anything more, a thousand waits make work for the
    garbage collector.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._confirmed: deque[object] = deque()
        self._is_waking = False
        self._watched: dict[object, _Watched] = {}
        self._limits: dict[object, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        #: Bound once, not for each wait.
        self.confirm = self._confirm

    def _confirm(self, answer: object) -> None:
        """End the wait for ``answer`` soon, from any thread."""
        self._confirmed.append(answer)
        if not self._is_waking:
            self._is_waking = True
            # RuntimeError: the confirmation came when its loop was closed already.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._finish_confirmed)

    def _finish_confirmed(self) -> None:
        self._is_waking = False
        while self._confirmed:
            self._finish(self._confirmed.popleft(), is_answered=True)

    def _finish(self, answer: object, *, is_answered: bool) -> None:
        """End a wait, if it has not ended, and forget it."""
        watched = self._watched.pop(answer, None)
        self._limits.pop(answer, None)
        if watched is not None and not watched.done():  # whoever waited may have been cancelled
            watched.set_result(is_answered)

    def watch(self, answer: object, seconds: float) -> _Watched:
        """Return what is finished once ``answer`` is confirmed, or after so long."""
        other = self._watched.get(answer)
        if other is not None and not other.done():
            raise RuntimeError("another coroutine waits for this answer")
        limit = self.loop.time() + seconds
        self._watched[answer] = watched = self.loop.create_future()
        self._limits[answer] = limit
        if limit < self._timer_at:
            self._set_timer(limit)
        return watched

    def _set_timer(self, limit: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(limit, self._finish_overdue)
        self._timer_at = limit

    def _finish_overdue(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self.loop.time()
        overdue = [answer for answer, limit in self._limits.items() if limit <= now]
        for answer in sorted(overdue, key=self._limits.__getitem__):
            self._finish(answer, is_answered=False)
        if self._limits:
            self._set_timer(min(self._limits.values()))


class _Here(threading.local):
    """This thread's current loop."""

    waiting: _Waiting | None = None


_here = _Here()


def _current() -> _Waiting:
    loop = asyncio.get_running_loop()
    waiting = _here.waiting
    if waiting is None or waiting.loop is not loop:
        _here.waiting = waiting = _Waiting(loop)
    return waiting


def wait_for(answer: Answer, seconds: float) -> asyncio.Future[bool]:
    """Return what to await: it ends once there is an answer, or after so long, and says which.

    Cancelling it cancels nothing else. One coroutine at a time may wait for an answer.
    """
    here = _current()
    watched = here.watch(answer, seconds)
    answer.add_done_callback(here.confirm)
    return watched


async def wait_for_all(answers: Sequence[Answer], seconds: float) -> None:
    """Wait until all are there, or so long. Cancels nothing, and carries no errors."""
    if not answers:
        return
    here = _current()
    left = [True] * len(answers)
    #: What is confirmed is the wait itself: all of them have one.
    wait = object()

    def count(_answer: object) -> None:
        left.pop()  # atomic: each may have a thread of its own
        if not left:
            here.confirm(wait)

    watched = here.watch(wait, seconds)
    for answer in answers:
        answer.add_done_callback(count)
    await watched
