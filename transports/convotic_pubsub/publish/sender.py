"""A thread that waits for the server's answer to one publish, so that its caller need not.

gRPC has the same in its blocking channel's futures, but begins a thread for each call that finds
none under way: a third of a publish's time.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Sender"]

_Job: TypeAlias = "tuple[Callable[..., object], tuple[object, ...]]"


class Sender:
    """Runs functions one after the other on a thread of its own, which the first one starts."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_ended = False

    def run(self, function: Callable[..., object], *args: object) -> bool:
        """Run ``function``, which raises nothing, soon; one caller at a time.

        Returns False once it has ended.
        """
        if self._has_ended:
            return False
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="convotic-pubsub-publish", daemon=True
            )
            self._thread.start()
        self._jobs.put((function, args))
        return True

    def end(self) -> None:
        """Run nothing more; does not block."""
        self._has_ended = True
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, args = job
            function(*args)
            del job, function, args  # a message must not live until the next one
