"""Run an async task's coroutine from Celery's synchronous tracer, in whatever pool that runs.

In the default pool the tracer is suspended (``suspend.py``); in solo, threads and prefork the
coroutine runs on the process's own loop and the tracer's thread waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from celery._state import _task_stack  # type: ignore[attr-defined]  # not in celery-types
from celery.exceptions import SoftTimeLimitExceeded

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.delivery.outcome import HandlerExited
from convotic_celery.runtime.execution.loop import process_loop
from convotic_celery.runtime.execution.suspend import can_suspend, run_suspendable, wait_for

if TYPE_CHECKING:
    from celery import Task

__all__ = [
    "CURRENT_RUN",
    "HandlerCancelled",
    "Run",
    "StopReason",
    "explain_cancellation",
    "run_coroutine",
]

T = TypeVar("T")


#: Why the pool stops a run.
StopReason: TypeAlias = Literal["terminated", "soft_limit", "hard_limit"]


class Run(Protocol):
    """What is known here of the pool's job: :class:`convotic_celery.runtime.pool.job.Job`."""

    stop_reason: StopReason | None
    soft_limit_seconds: float | None
    #: The thread of the loop that runs it; None for jobs in threads.
    thread_id: int | None
    #: What there is still to do before Celery's stacks are read; see ``pool/tracer.py``.
    enter: Callable[[], None] | None


#: The run of the current code; set for async jobs of the default pool and whatever they start.
CURRENT_RUN: ContextVar[Run | None] = ContextVar("convotic_run", default=None)


class HandlerCancelled(ConvoticError):
    """A coroutine raised ``CancelledError`` though nobody stopped it."""


def run_coroutine(task: Task[Any, Any], coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a task's coroutine to its end and return its result; ``task.request`` is right inside it.

    Raises what the coroutine does, which should be guarded by :func:`explain_cancellation`.
    """
    if can_suspend():
        return wait_for(coroutine)
    # Celery finds the request by greenlet, so it has to be taken along to the loop's thread.
    request = task.request_stack.top
    result: T = process_loop().run(run_suspendable(_drive_with_request, task, request, coroutine))
    return result


async def explain_cancellation(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a task's coroutine; say why, if it is stopped, and let nothing end the loop.

    Raises:
        SoftTimeLimitExceeded: The soft time limit passed.
        HandlerCancelled: It was cancelled from within.
        HandlerExited: It called ``sys.exit()``.
        asyncio.CancelledError: The pool stopped it (revoked, hard limit, shutdown).
    """
    job = CURRENT_RUN.get()
    try:
        return await coroutine
    except asyncio.CancelledError as exc:
        current = asyncio.current_task()
        if job is not None and job.stop_reason == "soft_limit":
            if current is not None:
                current.uncancel()
            raise SoftTimeLimitExceeded(job.soft_limit_seconds) from None
        if current is not None and current.cancelling():
            raise
        raise HandlerCancelled("the handler awaited something that was cancelled") from exc
    except (SystemExit, KeyboardInterrupt) as exc:
        # asyncio would let it through and end the loop, with every other handler on it.
        raise HandlerExited(f"the handler raised {exc!r}") from exc


def _drive_with_request(task: Task[Any, Any], request: Any, coroutine: Coroutine[Any, Any, T]) -> T:
    _task_stack.push(task)
    task.request_stack.push(request)
    try:
        return wait_for(coroutine)
    finally:
        task.request_stack.pop()
        _task_stack.pop()
