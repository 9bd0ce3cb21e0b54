"""Run an async task's coroutine for Celery's synchronous tracer, in whatever pool that runs.

The tracer's thread waits while the coroutine runs on an event loop: the default pool's, or else the
process's own. So Celery's own, unmodified tracer traces async tasks; only the default pool has a
shorter way for handlers (``pool/tracer.py``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.celery_internals import TASKS
from convotic_celery.runtime.execution.current_run import CURRENT_RUN, Run, key_stacks_by_run
from convotic_celery.runtime.execution.exits import exited
from convotic_celery.runtime.execution.loop import LoopThread, process_loop

if TYPE_CHECKING:
    from celery import Task

__all__ = ["HandlerCancelled", "drive", "explain", "explain_cancellation", "run_coroutine"]

T = TypeVar("T")


class HandlerCancelled(ConvoticError):
    """A coroutine raised ``CancelledError`` although it was not stopped."""


def run_coroutine(task: Task[Any, Any], coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a task's coroutine to its end and return its result; ``task.request`` is right inside it.

    Blocks. Raises what the coroutine does, which should be guarded by :func:`explain_cancellation`.
    """
    run = CURRENT_RUN.get()
    if run is None or run.home is None or run.thread_id is not None:
        # No thread of our pool's, or the call of a task inside a coroutine.
        run = Run(process_loop())
    assert run.home is not None
    driven = drive(run, task, task.request_stack.top, coroutine)
    if run.home.thread_id != threading.get_ident():
        interrupted = partial(setattr, run, "stop_reason", "terminated")
        with run.waiting():
            return run.home.run(driven, on_interrupt=interrupted)
    nested = LoopThread("convotic-nested")  # this loop can't turn while its thread waits
    nested.start()
    try:
        return nested.run(driven)
    finally:
        nested.stop()


async def drive(
    run: Run, task: Task[Any, Any], request: Any, coroutine: Coroutine[Any, Any, T]
) -> T:
    """Await a task's coroutine as ``run``: its ``current_task`` and ``task.request`` are right."""
    requests: Any = task.request_stack
    key_stacks_by_run(requests)

    def push() -> None:
        TASKS.push(task)
        requests.push(request)

    run.begin(push)
    try:
        return await coroutine
    finally:
        run.end(requests)


async def explain_cancellation(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a task's coroutine; say why, if it is stopped, and let nothing end the loop.

    Raises:
        SoftTimeLimitExceeded: The soft time limit passed.
        HandlerCancelled: It was cancelled from within.
        HandlerExited: It called ``sys.exit()``.
        asyncio.CancelledError: The pool stopped it (revoked, hard limit, shutdown).
    """
    try:
        return await coroutine
    except (asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit) as raised:
        explained = explain(raised)
        if explained is raised:
            raise
        raise explained  # noqa: B904 - it has its cause


def explain(raised: BaseException) -> BaseException:
    """Return what :func:`explain_cancellation` raises for this, which is being handled."""
    kind = type(raised)  # not by isinstance(): it asks the error for its __class__
    if issubclass(kind, asyncio.CancelledError):
        return _explain_cancelled(raised)
    if not issubclass(kind, SystemExit | KeyboardInterrupt | GeneratorExit):
        return raised
    if issubclass(kind, GeneratorExit) and not _is_in_task():
        return raised  # the coroutine is being closed
    # asyncio would let it through and end the loop, with every other handler on it.
    return exited(raised)


def _explain_cancelled(raised: BaseException) -> BaseException:
    run, current = CURRENT_RUN.get(), asyncio.current_task()
    if run is not None and run.stop_reason == "soft_limit":
        if current is not None:
            current.uncancel()
        stopped = SoftTimeLimitExceeded(run.soft_limit_seconds)
        stopped.__suppress_context__ = True
        return stopped
    if run is not None and not run.is_stopped and current is not None:
        while current.uncancel():  # by its own code: it was not stopped from outside
            pass
    if current is not None and current.cancelling():
        return raised
    cancelled = HandlerCancelled("the handler awaited something that was cancelled")
    cancelled.__cause__ = raised
    return cancelled


def _is_in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
