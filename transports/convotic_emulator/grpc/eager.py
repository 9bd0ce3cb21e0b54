"""A coroutine that has made its first step before a task has it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Begun"]


class Begun(Coroutine[Any, Any, None]):
    """Makes the first step of a coroutine, outside of any task; a task may do the rest."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        #: Whether nothing is left to do.
        self.has_ended = False
        #: What it waits for since the first step, until the task knows it.
        self._waits_for: Any = None
        self._is_known = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.has_ended = True
        else:
            _mark(self._waits_for, is_yielded=False)

    def send(self, value: Any) -> Any:
        """Go on: the first time there is nothing to do but to say what is waited for."""
        if self._is_known:
            return self._coroutine.send(value)
        self._is_known = True
        waits_for, self._waits_for = self._waits_for, None
        _mark(waits_for, is_yielded=True)
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Raise where it waits: its task was cancelled, maybe before its first turn."""
        self._is_known = True
        self._waits_for = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """Be a coroutine; only tasks run this one, and they send."""
        raise NotImplementedError


def _mark(future: Any, *, is_yielded: bool) -> None:
    """Set the mark of a future that is on its way from an ``await`` to its task.

    Between two turns of the loop others may wait for it too, and would take it for theirs.
    """
    if asyncio.isfuture(future):
        future._asyncio_future_blocking = is_yielded
