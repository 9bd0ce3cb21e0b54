"""A coroutine that runs its first step before a task owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["EagerCoroutine"]


class EagerCoroutine(Coroutine[Any, Any, None]):
    """Runs a coroutine's first step at once, outside any task; a task can run the rest.

    Python 3.12 has eager tasks; this serves 3.11 too, and needs no task where one step is all.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        #: Whether the coroutine has returned.
        self.has_ended = False
        #: What the first step waits for, until the task gets it.
        self._waits_for: Any = None
        self._is_in_task = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.has_ended = True
        else:
            _mark(self._waits_for, is_yielded=False)

    def send(self, value: Any) -> Any:
        """Resume; the task's first call only fetches what the first step waits for."""
        if self._is_in_task:
            return self._coroutine.send(value)
        self._is_in_task = True
        waits_for, self._waits_for = self._waits_for, None
        _mark(waits_for, is_yielded=True)
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Raise at the await: the task was cancelled, perhaps before its first turn."""
        self._is_in_task = True
        self._waits_for = None
        try:
            return self._coroutine.throw(*error)
        finally:
            # The error's traceback holds this frame: with the error in it, that would be a cycle,
            # and all that the coroutine held would stay until the collector runs.
            del error

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """Be a Coroutine by type; tasks drive this one by ``send`` alone."""
        raise NotImplementedError


def _mark(future: Any, *, is_yielded: bool) -> None:
    """Set the flag of a future that travels from an ``await`` to its task.

    Between two turns of the loop others may await it too, and would take the flag for theirs.
    """
    if asyncio.isfuture(future):
        future._asyncio_future_blocking = is_yielded
