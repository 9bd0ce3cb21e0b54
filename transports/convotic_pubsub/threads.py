"""Daemon threads that are started when there is work for them: many alike, or one.

Unlike :class:`concurrent.futures.ThreadPoolExecutor`, the interpreter does not wait for them when
it ends (a worker's second signal must stop it now), and what has not begun can be taken back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from convotic_pubsub.outage import Outage

__all__ = ["LazyThread", "WorkerThreads"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LazyThread:
    """One daemon thread, which starts when it is needed first. Thread-safe.

    A forked child has none of its parent's threads: the first need there starts another one.
    """

    def __init__(self, work: Callable[[], object], *, name: str) -> None:
        self._work = work
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has started, in this process, and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> bool:
        """Start it where it does not run; True if that was needed.

        Raises:
            RuntimeError: the system lets no thread start now. The next call tries again.
        """
        if self.is_alive:
            return False
        with self._lock:
            if self.is_alive:
                return False
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
            return True

    def join(self, seconds: float) -> bool:
        """Wait until it has ended, for ``seconds`` at most; whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.is_alive


class WorkerThreads(Generic[T]):
    """Runs ``handle(item)`` for each submitted item, at most ``limit`` at a time. Thread-safe.

    Threads are kept. ``handle`` should raise nothing: an error of it is only logged.
    """

    def __init__(self, handle: Callable[[T], None], *, limit: int, name: str) -> None:
        self._handle = handle
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        #: None: a thread should see whether it is one too many.
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        #: Items that wait or run.
        self._unfinished = 0
        self._threads = 0
        self._is_stopped = False
        #: The system lets no more threads start.
        self._limited = Outage()

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
        with self._lock:
            if self._is_stopped:
                raise RuntimeError(f"{self._name}: stopped")
            is_one_short = self._threads <= self._unfinished and self._threads < self._limit
            if is_one_short and not self._start_thread() and not self._threads:
                raise RuntimeError(f"{self._name}: the system lets no thread start")
            self._unfinished += 1
            self._queue.put(item)

    def resize(self, limit: int) -> None:
        """Change how many run at a time; running ones are not disturbed."""
        with self._lock:
            self._limit = max(1, limit)
            while self._threads < min(self._limit, self._unfinished) and self._start_thread():
                pass
            self._look_for_surplus()

    def take_back(self) -> list[T]:
        """Remove and return what has not begun."""
        items: list[T] = []
        with self._lock:
            try:
                while True:
                    item = self._queue.get_nowait()
                    if item is not None:
                        items.append(item)
            except Empty:
                self._unfinished -= len(items)
                self._look_for_surplus()
        return items

    def stop(self) -> None:
        """End idle threads now and busy ones once nothing waits. Does not wait. Idempotent."""
        with self._lock:
            self._is_stopped = True
            self._look_for_surplus()

    def _look_for_surplus(self) -> None:
        surplus = self._threads - (0 if self._is_stopped else self._limit)
        for _ in range(surplus):
            self._queue.put(None)

    def _start_thread(self) -> bool:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as exc:  # the system's limit of threads or of memory
            if self._limited.miss():
                logger.warning(
                    "%s: %s; %d threads go on. Raise the limit of processes and threads "
                    "(ulimit -u, the container's pids limit)",
                    *(self._name, exc, self._threads),
                )
            return False
        if self._limited.end():
            logger.info("%s: threads can be started again", self._name)
        self._threads += 1
        return True

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                if self._may_leave():
                    return
                continue
            try:
                self._handle(item)
            except BaseException:
                # Whatever becomes of the line: this thread has to go on.
                with contextlib.suppress(Exception):
                    logger.exception("%s: a job raised what it should have handled", self._name)
            del item  # an idle thread must not keep the last message alive
            with self._lock:
                self._unfinished -= 1

    def _may_leave(self) -> bool:
        with self._lock:
            is_surplus = self._is_stopped or self._threads > self._limit
            self._threads -= is_surplus
            return is_surplus
