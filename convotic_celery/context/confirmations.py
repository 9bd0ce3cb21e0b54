"""Waiting on an event loop for what another thread confirms.

``asyncio.wrap_future`` with ``shield`` and ``wait_for`` does the same for one future, with a timer
and a wake-up of the loop for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_pubsub.outgoing import Answer

__all__ = ["wait_for", "wait_for_all"]


class _Waiting:
    """What one loop waits for.

    Whatever other threads confirm meanwhile wakes the loop once, and all limits share one timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._confirmed: deque[asyncio.Future[None]] = deque()
        self._is_waking = False
        self._limits: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def confirm(self, watched: asyncio.Future[None], _future: object) -> None:
        """Finish ``watched`` soon, from any thread."""
        self._confirmed.append(watched)
        if not self._is_waking:
            self._is_waking = True
            # RuntimeError: the confirmation came when its loop was closed already.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._finish_confirmed)

    def _finish_confirmed(self) -> None:
        self._is_waking = False
        while self._confirmed:
            _finish(self._confirmed.popleft())

    async def wait(self, watched: asyncio.Future[None], seconds: float) -> None:
        """Return when ``watched`` is finished, or after so long."""
        limit = self.loop.time() + seconds
        self._limits[watched] = limit
        if self._timer is None or limit < self._timer.when():
            self._set_timer(limit)
        try:
            await watched
        finally:
            self._limits.pop(watched, None)

    def _set_timer(self, limit: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(limit, self._finish_overdue)

    def _finish_overdue(self) -> None:
        self._timer = None
        now = self.loop.time()
        for watched, limit in self._limits.items():
            if limit <= now:
                _finish(watched)
        left = [limit for watched, limit in self._limits.items() if not watched.done()]
        if left:
            self._set_timer(min(left))


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


async def wait_for(future: Answer, seconds: float) -> bool:
    """Wait until ``future`` is done, or so long; say whether it is. Cancels nothing."""
    here = _current()
    watched: asyncio.Future[None] = here.loop.create_future()
    future.add_done_callback(partial(here.confirm, watched))
    await here.wait(watched, seconds)
    return future.done()


async def wait_for_all(futures: Sequence[Answer], seconds: float) -> None:
    """Wait until all are done, or so long. Cancels nothing, and carries no errors."""
    here = _current()
    watched: asyncio.Future[None] = here.loop.create_future()
    left = [True] * len(futures)

    def count(future: object) -> None:
        left.pop()  # atomic: each may have a thread of its own
        if not left:
            here.confirm(watched, future)

    if not futures:
        return
    for future in futures:
        future.add_done_callback(count)
    await here.wait(watched, seconds)


def _finish(watched: asyncio.Future[None]) -> None:
    if not watched.done():
        watched.set_result(None)
