"""Suspend synchronous code while a coroutine waits.

Celery's tracer is a plain function: it calls the task and goes on when the task has returned. An
async task returns a coroutine instead. Here the tracer runs inside a greenlet on the event loop's
thread; the coroutine is driven in that greenlet, and each time it waits, the greenlet (tracer
included) is left as it stands and an :class:`asyncio.Task` waits in its place. So Celery's own,
unmodified code runs a thousand coroutines at once.

The coroutine runs *in* the greenlet, which is what Celery keys ``self.request`` by, and the
:class:`asyncio.Task` is the current one, so ``asyncio.timeout``, task groups and ``gather`` work.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]  # has no py.typed

__all__ = ["can_suspend", "run_suspendable", "wait_for"]

T = TypeVar("T")


class _Suspendable(greenlet):  # type: ignore[misc]  # as above
    """A greenlet whose parent waits for what its coroutine waits for.

    It runs one function after another: with a greenlet of its own, each run would begin with a
    system call for a piece of Python's stack, and end with another one.
    """

    #: Whether the last function has ended; with which error, if any.
    finished = False
    error: BaseException | None = None

    def run(self) -> None:
        """Run functions; what each returns goes to the parent, which brings the next one."""
        outcome: Any = None
        while True:
            function, args = self.parent.switch(outcome)
            self.finished = False
            try:
                outcome = function(*args)
            except GreenletExit:
                raise  # nobody needs this greenlet any more
            except BaseException as exc:  # noqa: BLE001 - the caller's, who raises it
                outcome, self.error = None, exc
            self.finished = True
            del function, args  # an idle greenlet keeps nothing alive


class _Idle(threading.local):
    """Greenlets of this thread that wait for their next function."""

    def __init__(self) -> None:
        self.greenlets: list[_Suspendable] = []


#: More than these are not kept.
_MAX_IDLE = 200
_idle = _Idle()


def can_suspend() -> bool:
    """Return True where :func:`wait_for` may be called: below :func:`run_suspendable`."""
    return isinstance(getcurrent(), _Suspendable)


async def run_suspendable(function: Callable[..., T], /, *args: Any) -> T:
    """Run a plain function; wherever it calls :func:`wait_for`, this coroutine waits instead.

    The function has its own copy of the context variables. Cancelling the caller raises
    ``CancelledError`` inside the coroutine that is being waited for.
    """
    job = _take_idle()
    # A greenlet has a context of its own, not its caller's.
    job.gr_context = copy_context()
    outcome = job.switch(function, args)
    while not (job.finished or job.dead):
        try:
            value = await _pass_on(outcome)
        except BaseException as exc:  # noqa: BLE001 - whatever it is belongs to the coroutine inside
            outcome = job.throw(exc)
        else:
            outcome = job.switch(value)
    error, job.error = job.error, None
    if not job.dead:
        job.gr_context = None
        if len(_idle.greenlets) < _MAX_IDLE:
            _idle.greenlets.append(job)
    if error is not None:
        try:
            raise error
        finally:
            del error  # it refers to this frame
    result: T = outcome
    return result


def _take_idle() -> _Suspendable:
    """Return a greenlet of this thread that runs nothing, and returns to the caller's."""
    here = getcurrent()
    while _idle.greenlets:
        job = _idle.greenlets.pop()
        if not job.dead and job.parent is here:
            return job
    job = _Suspendable()
    # Started without a function: what it is started with it would keep for good.
    job.switch()
    return job


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine to its end from plain code below :func:`run_suspendable`.

    Raises:
        RuntimeError: There is nobody who could wait (see :func:`can_suspend`).
    """
    here = getcurrent()
    if not isinstance(here, _Suspendable) or here.parent is None:
        coroutine.close()
        raise RuntimeError("wait_for() needs run_suspendable() above it")
    waiter = here.parent
    try:
        awaited = coroutine.send(None)
        while True:
            try:
                value = waiter.switch(awaited)
            except BaseException as exc:  # noqa: BLE001 - cancellation and errors go where the wait is
                awaited = coroutine.throw(exc)
            else:
                awaited = coroutine.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


@types.coroutine
def _pass_on(awaited: Any) -> Generator[Any, Any, Any]:
    """Yield to the event loop exactly what the inner coroutine yielded."""
    return (yield awaited)
