"""Tasks whose first step is made at once: a turn of the event loop less for each message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any

__all__ = ["start_task"]


def start_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, which must raise nothing, as a task of ``loop``, and its first step now.

    Called on the loop's thread, outside of any task. The task is the current one in the first step
    too. Python 3.12 and later can do this themselves.
    """
    if sys.version_info >= (3, 12):
        asyncio.Task(coroutine, loop=loop, eager_start=True)
        return
    context = copy_context()
    begun = _Begun(coroutine)
    task = loop.create_task(begun, context=context)
    # For who runs tasks by other means, https://docs.python.org/3/library/asyncio-extending.html.
    asyncio.tasks._enter_task(loop, task)
    try:
        context.run(begun.begin)
    finally:
        asyncio.tasks._leave_task(loop, task)


class _Begun(Coroutine[Any, Any, None]):
    """A coroutine that has made its first step, as its task sees it in the loop's next turn."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._has_ended = False
        #: What it waits for since the first step, until the task knows it.
        self._waits_for: Any = None
        self._is_known = False

    def begin(self) -> None:
        """Make the first step."""
        try:
            self._waits_for = self._coroutine.send(None)
        except StopIteration:
            self._has_ended = True
        else:
            _mark(self._waits_for, is_yielded=False)

    def send(self, value: Any) -> Any:
        """Go on: the first time there is nothing to do but to say what is waited for."""
        if self._is_known:
            return self._coroutine.send(value)
        if self._has_ended:
            raise StopIteration
        self._is_known = True
        waits_for, self._waits_for = self._waits_for, None
        _mark(waits_for, is_yielded=True)
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Raise where it waits: its task was cancelled, maybe before the loop's next turn."""
        self._is_known = True
        self._waits_for = None
        if self._has_ended:
            raise StopIteration
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
