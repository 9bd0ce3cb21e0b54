"""One attempt at a message: run the handler, and raise what tells Celery the meaning of its end.

That is Celery's ``Retry`` for a failed run with attempts left (it publishes nothing when it is
*raised*, only ``Task.retry`` does), ``Ignore`` for what the handler declined, and the error itself
for the last one, after ``on_dead_letter`` was told of it.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from celery.exceptions import Ignore, Retry, WorkerShutdown, WorkerTerminate

from convotic_celery.runtime.delivery.outcome import (
    Again,
    Dropped,
    Duplicate,
    GivenUp,
    GiveUp,
    HandlerExited,
    Later,
    judge,
)
from convotic_celery.runtime.execution.coroutine import explain_cancellation
from convotic_celery.runtime.execution.dead_letter_hook import (
    tell_dead_letter_async,
    tell_dead_letter_sync,
)
from convotic_celery.runtime.execution.deadline import RunControl, hold_lease
from convotic_celery.runtime.execution.invoke import build_message, run_async, run_sync

if TYPE_CHECKING:
    from numbers import Real

    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.execution.deadline import HoldLease
    from convotic_celery.runtime.execution.invoke import Execution
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.message import WorkerMessage

__all__ = ["attempt_async", "attempt_sync", "make_control"]

#: Passed through untouched: the worker is being told to stop.
_WORKER_STOPS = (WorkerShutdown, WorkerTerminate, GeneratorExit, asyncio.CancelledError)


class _End(NamedTuple):
    #: What is to be raised.
    error: Exception
    #: Whether the message is given up with it.
    is_final: bool


async def attempt_async(
    execution: Execution, raw: bytes, facts: MessageFacts, task_id: str
) -> None:
    """Run an ``async def`` handler on a message's data.

    Raises:
        Retry: The message shall come again.
        Ignore: It shall be acknowledged, though it was not done.
        Exception: This was its last attempt; ``on_dead_letter`` has been called.
        asyncio.CancelledError: The pool stopped the run.
    """
    control = make_control(execution.definition, partial(hold_lease, task_id))
    try:
        message = _open(execution, raw, facts)
        await explain_cancellation(run_async(execution, message, facts, control))
    except _WORKER_STOPS:
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever a handler raises has a meaning
        end = _conclude(exc, execution, facts, control.handler_seconds)
    else:
        return
    if end.is_final and execution.definition.options.on_dead_letter is not None:
        await explain_cancellation(tell_dead_letter_async(execution, end.error, raw, facts))
    raise end.error


def attempt_sync(execution: Execution, raw: bytes, facts: MessageFacts, task_id: str) -> None:
    """Run a plain ``def`` handler; raises what :func:`attempt_async` does."""
    control = make_control(execution.definition, partial(hold_lease, task_id))
    try:
        message = _open(execution, raw, facts)
        run_sync(execution, message, facts, control)
    except _WORKER_STOPS:
        raise
    except BaseException as exc:  # noqa: BLE001 - as above
        end = _conclude(exc, execution, facts, control.handler_seconds)
    else:
        return
    if end.is_final and execution.definition.options.on_dead_letter is not None:
        tell_dead_letter_sync(execution, end.error, raw, facts)
    raise end.error


def make_control(definition: HandlerDefinition, hold: HoldLease) -> RunControl:
    """Return the clock of a run that begins now."""
    options = definition.options
    return RunControl(options.run_limit, hold, bound_seconds=options.max_lease_duration)


def _open(execution: Execution, raw: bytes, facts: MessageFacts) -> WorkerMessage[Any]:
    """Return the handler's message; raise GivenUp if only ``on_dead_letter`` is to be told."""
    if "give_up" in facts:
        raise GivenUp(facts["give_up"], facts["attempt"])
    return build_message(execution.definition, raw, facts)


def _conclude(
    raised: BaseException, execution: Execution, facts: MessageFacts, elapsed_seconds: float
) -> _End:
    if "give_up" in facts and isinstance(raised, GivenUp):
        return _End(raised, is_final=True)
    error = raised if isinstance(raised, Exception) else _exited(raised)
    verdict = judge(
        error,
        execution.definition.options,
        attempt=facts["attempt"],
        elapsed_seconds=elapsed_seconds,
        random=random.random(),  # noqa: S311 - a back-off's jitter
    )
    match verdict:
        case Again(delay_seconds=delay):
            retry = Retry(exc=error, when=cast("Real", round(delay, 3)))
            retry.__cause__ = error
            return _End(retry, is_final=False)
        case Later(delay_seconds=delay):
            return _End(Retry(exc=error, when=cast("Real", round(delay, 3))), is_final=False)
        case Dropped(reason=reason):
            ignore = Duplicate(reason) if isinstance(error, Duplicate) else Ignore(reason)
            ignore.__cause__ = error
            return _End(ignore, is_final=False)
        case GiveUp(error=final):
            if final is not error:
                final = final.with_traceback(error.__traceback__)
            return _End(final, is_final=True)


def _exited(raised: BaseException) -> HandlerExited:
    """sys.exit() in a handler must not end the worker."""
    exited = HandlerExited(f"the handler raised {raised!r}")
    exited.__cause__ = raised
    return exited
