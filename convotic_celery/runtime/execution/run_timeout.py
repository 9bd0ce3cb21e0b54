"""What stops a run at its deadline: :class:`RunTimeout`, ``asyncio.timeout`` without a timer each.

All runs of a handler may take equally long, so they end in the order in which they began: those of
a limit stand in one queue for each loop, and one timer looks after its first. Nearly every run has
left it long before. Only one that was moved, or that is out of order, gets a timer of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

__all__ = ["RunTimeout"]


class RunTimeout:
    """Cancels a task at a time of the monotonic clock, from :meth:`begin` to :meth:`end`.

    The base of a run's deadline, which is made for each message: so it has no constructor, and no
    context manager. Used on one loop, once.
    """

    __slots__ = ("_cancelling", "_queue", "_task", "_timer", "due_at", "is_due")

    #: The task, from its begin to its end. A subclass's constructor sets it to None, and
    #: ``is_due`` to False.
    _task: asyncio.Task[Any] | None
    _timer: asyncio.TimerHandle | None
    #: When it stops the task, unless it was moved.
    due_at: float
    #: Whether it has cancelled the task.
    is_due: bool

    def begin(self, ends_at: float, limit_seconds: float) -> None:
        """Begin to look after the running task, which may run until then.

        Runs of the same limit share a timer.
        """
        self._queue = queue = _find_queue(limit_seconds)
        self._task = task = asyncio.current_task(queue.loop)
        assert task is not None
        self._cancelling = task.cancelling()
        self._timer = None
        self.due_at = ends_at
        if ends_at >= queue.last_ends_at:
            queue.last_ends_at = ends_at
            queue.runs[self] = None
            if not queue.is_timed:
                queue.look_later(ends_at)
        else:
            self._set_timer(ends_at - time.monotonic())

    def end(self) -> bool:
        """Look after the task no more, if it did.

        Returns:
            Whether it has cancelled the task, and nobody else has: its cancellation is this one's.
        """
        task, self._task = self._task, None  # it refers to all that the run had
        if task is None:
            return False
        if self._timer is None and not self.is_due:  # nearly every run
            del self._queue.runs[self]
            return False
        self._leave()
        return self.is_due and task.uncancel() <= self._cancelling

    def move(self, seconds: float) -> None:
        """Let it be due so many seconds from now, unless it was already, or ended. Thread-safe."""
        if self._task is not None:  # else its loop may be gone, too
            self._queue.loop.call_soon_threadsafe(self._move, seconds)

    def _move(self, seconds: float) -> None:
        if self._task is not None and not self.is_due:
            self._leave()
            self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._queue.loop.call_later(max(0.0, seconds), self.stop)

    def _leave(self) -> None:
        self._queue.runs.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Stop the task: it is due."""
        self.is_due = True
        if self._task is not None:
            self._task.cancel()


class _Queue:
    """The runs of one limit on one loop, the first to be stopped first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.runs: dict[RunTimeout, None] = {}
        #: Whether the timer is set; then at least one has been here, the last of them due then.
        self.is_timed = False
        self.last_ends_at = 0.0

    def look_later(self, ends_at: float) -> None:
        """Set the timer to that time."""
        self.is_timed = True
        self.loop.call_later(max(0.0, ends_at - time.monotonic()), self._look)

    def _look(self) -> None:
        """Stop what is due, and look again when the next one is."""
        for run in list(self.runs):
            if run.due_at > time.monotonic():
                self.look_later(run.due_at)
                return
            del self.runs[run]
            run.stop()
        self.is_timed = False
        self.last_ends_at = 0.0


class _OfThread(threading.local):
    """The queues, by limit, of the loop that runs on a thread."""

    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self) -> None:
        self.queues: dict[float, _Queue] = {}


_of_thread = _OfThread()


def _find_queue(limit_seconds: float) -> _Queue:
    queue = _of_thread.queues.get(limit_seconds)
    loop = asyncio.get_running_loop()
    if queue is None or queue.loop is not loop:
        if _of_thread.loop is not loop:
            _of_thread.loop, _of_thread.queues = loop, {}
        queue = _of_thread.queues[limit_seconds] = _Queue(loop)
    return queue
