"""Daemon threads for plain ``def`` jobs.

Unlike :class:`concurrent.futures.ThreadPoolExecutor`, the interpreter does not wait for them when
it ends (a second signal must stop the worker now), and what has not begun can be taken back.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["WorkerThreads"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class WorkerThreads(Generic[T]):
    """Runs ``handle(item)`` for each submitted item, at most ``limit`` at a time. Thread-safe.

    Threads are started when needed and kept.
    """

    def __init__(self, handle: Callable[[T], None], *, limit: int, name: str) -> None:
        self._handle = handle
        self._name = name
        self._limit = limit
        self._condition = threading.Condition()
        self._queue: deque[T] = deque()
        self._threads = 0
        self._idle = 0
        self._stopped = False
        #: Whether the system has refused a thread, which is told once.
        self._refused = False

    @property
    def count(self) -> int:
        """How many threads exist."""
        return self._threads

    def submit(self, item: T) -> None:
        """Queue an item; never blocks. If the system lets no more threads start, those there do it.

        Raises:
            RuntimeError: :meth:`stop` was called, or the system lets no thread start and there is
                none yet. The item is not queued.
        """
        with self._condition:
            if self._stopped:
                raise RuntimeError(f"{self._name}: stopped")
            self._queue.append(item)
            if self._idle >= len(self._queue):
                self._condition.notify()
            elif self._threads < self._limit and not self._start_thread() and not self._threads:
                self._queue.pop()
                raise RuntimeError(f"{self._name}: the system lets no thread start")

    def resize(self, limit: int) -> None:
        """Change how many run at a time; running ones are not disturbed."""
        with self._condition:
            self._limit = max(1, limit)
            while self._threads < self._limit and len(self._queue) > self._idle:
                if not self._start_thread():
                    break
            self._condition.notify_all()

    def take_back(self) -> list[T]:
        """Remove and return what has not begun."""
        with self._condition:
            waiting = list(self._queue)
            self._queue.clear()
            return waiting

    def stop(self) -> None:
        """End idle threads now and busy ones after their item. Does not wait. Idempotent."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _start_thread(self) -> bool:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as exc:  # the system's limit of threads or of memory
            if not self._refused:
                logger.warning(
                    "%s: %s; %d threads go on. Raise the limit of processes and threads "
                    "(ulimit -u, the container's pids limit)",
                    *(self._name, exc, self._threads),
                )
            self._refused = True
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._handle(item)
            except BaseException:
                logger.exception("%s: a job's bookkeeping failed", self._name)
            del item  # an idle thread must not keep the last message alive

    def _next(self) -> T | None:
        with self._condition:
            while not self._queue:
                if self._stopped or self._threads > self._limit:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._condition.wait()
                self._idle -= 1
            return self._queue.popleft()
