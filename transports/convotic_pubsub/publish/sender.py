"""A thread that waits for the server's answer to one publish, so that its caller need not.

gRPC has the same in its blocking channel's futures, but begins a thread for each call that finds
none under way: a third of a publish's time.
"""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Sender"]

logger = logging.getLogger(__name__)

_Job: TypeAlias = "tuple[Callable[..., object], tuple[object, ...]]"


class Sender:
    """Runs functions one after the other on a thread of its own, which the first one starts."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_ended = False
        self._lock = threading.Lock()

    def run(self, function: Callable[..., object], *args: object) -> bool:
        """Run ``function`` soon. Thread-safe.

        Returns False once it has ended, or if the system lets no thread start.
        """
        with self._lock:
            if self._has_ended or not (self._thread or self._start()):
                return False
            self._jobs.put((function, args))
            return True

    def end(self) -> None:
        """Run nothing more than what was taken on; does not block."""
        with self._lock:
            self._has_ended = True
            self._jobs.put(None)

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="convotic-pubsub-publish", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's limit of threads: the I/O thread does it
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, args = job
            try:
                function(*args)
            except BaseException:
                logger.exception("A message could not be published by itself")
            del job, function, args  # a message must not live until the next one
