"""Name the handler that blocks the event loop.

One handler that computes or calls blocking code stops all others of its process, and nothing in the
log would say why. This watches from another thread and shows where the loop stands.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from convotic_celery.runtime.execution.coroutine import drive
from convotic_celery.runtime.pool.tracer import LoopTracer

if TYPE_CHECKING:
    from types import FrameType

    from convotic_celery.runtime.execution.loop import LoopThread

__all__ = ["LoopWatchdog", "find_frame"]

logger = logging.getLogger(__name__)


class LoopWatchdog:
    """Warns once, with the stack, each time the loop has not turned for ``blocked_seconds``.

    Costs one wake-up of the loop each quarter of that time, and none while ``is_busy()`` is false.
    """

    def __init__(
        self, thread: LoopThread, *, blocked_seconds: float, is_busy: Callable[[], bool]
    ) -> None:
        self._loop_thread = thread
        self._blocked_seconds = blocked_seconds
        self._is_busy = is_busy
        self._stopping = threading.Event()
        self._turned = threading.Event()
        #: The task that blocks the loop now; "": none does.
        self.blocked_by = ""
        self._thread = threading.Thread(target=self._watch, name="convotic-watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Idempotent; does not wait."""
        self._stopping.set()
        self._turned.set()

    def _watch(self) -> None:
        interval = self._blocked_seconds / 4
        while not self._stopping.wait(interval):
            if self._is_busy() and not self._turns_in_time():
                self._report()
                self._turned.wait()
                self.blocked_by = ""

    def _turns_in_time(self) -> bool:
        self._turned.clear()
        try:
            self._loop_thread.loop.call_soon_threadsafe(self._turned.set)
        except RuntimeError:  # stopped meanwhile
            return True
        return self._turned.wait(self._blocked_seconds)

    def _report(self) -> None:
        frame = find_frame(self._loop_thread.thread_id)
        self.blocked_by = _find_task(frame) or "An async handler"
        stack = "".join(traceback.format_stack(frame)) if frame else "(the thread has ended)"
        logger.warning(
            "%s has blocked the event loop for more than %g s; every other async handler of this "
            "worker waits for it. Await instead, use asyncio.to_thread(), or make the handler a "
            "plain def. The loop stands here:\n%s",
            self.blocked_by,
            self._blocked_seconds,
            stack,
        )


def find_frame(thread_id: int | None) -> FrameType | None:
    """Return what a thread of this process runs now; None if it has ended.

    Python 3.11 holds the lock of its list of threads meanwhile, and may collect garbage. Then a
    finalizer that starts a thread, or lets another go on that does, stops the process for good:
    https://github.com/python/cpython/issues/106883.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread_id or 0)
    finally:
        if collects:
            gc.enable()


def _find_task(frame: FrameType | None) -> str | None:
    """Return the name of the task that runs here; None for what a task has only started."""
    while frame is not None:
        if frame.f_code is LoopTracer.run.__code__ or frame.f_code is drive.__code__:
            name: str = frame.f_locals["task"].name
            return name
        frame = frame.f_back
    return None
