"""One attempt at a message, from its data to the settlement: :func:`attempt`.

Written once for async and plain handlers, as steps (``delivery/steps.py``). It ends with an
:class:`Ended`, whose error tells Celery what became of the run and carries the settlement to the
worker's side (``delivery/carriers.py``). A message that has nothing to ask for needs no steps:
:func:`attempt_async`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convotic_celery.context.records import new_token
from convotic_celery.runtime.delivery.attempts import RunName, describe_failure
from convotic_celery.runtime.delivery.carriers import RunIgnored, RunRetried
from convotic_celery.runtime.delivery.error_text import error_type, make_readable
from convotic_celery.runtime.delivery.outcome import Began, Raised, final_error, settle
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    AlreadyFailed,
    Defer,
    Fail,
    HandlerExited,
    RetryRun,
    Run,
    Settlement,
    WorkerFault,
)
from convotic_celery.runtime.delivery.steps import Pause, drive_async
from convotic_celery.runtime.execution.coroutine import explain
from convotic_celery.runtime.execution.exits import STOPS, as_exception, stops_worker
from convotic_celery.runtime.execution.invoke import (
    CallHandler,
    CallHook,
    Decode,
    build_message,
    call_async,
    explain_deadline,
    has_plain_call,
    make_context,
)
from convotic_celery.runtime.execution.worker_faults import (
    PAUSE_SECONDS,
    find_worker_fault,
    report_fault,
)
from convotic_celery.sdk.middleware import check_returned

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.attempts import End
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.delivery.steps import Steps
    from convotic_celery.runtime.execution.deadline import RunDeadline
    from convotic_celery.runtime.execution.invoke import Execution
    from convotic_celery.sdk.message import WorkerMessage

__all__ = ["Ended", "attempt", "attempt_async", "run_handler"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that did not return: what becomes of its message, and what Celery is shown."""

    settlement: Settlement
    #: To be raised; for a failed message, what its last run raised.
    error: Exception


def attempt(
    execution: Execution, raw: bytes, facts: MessageFacts, deadline: RunDeadline
) -> Steps[Ended | None]:
    """Run a handler on a message's data; None if it returned.

    Raises:
        asyncio.CancelledError: The pool stopped the run.
        SystemExit: The pool ends this process, a child of prefork.
        WorkerShutdown, WorkerTerminate: Celery's, out of the handler.
    """
    try:
        yield from _begin(execution, facts)
        yield from _check_claim(execution, facts)
        if execution.definition.takes_long(raw, facts["attributes"]):
            message = yield Decode(raw, facts)
        else:
            message = build_message(execution.definition, raw, facts)
        yield from run_handler(execution, message, facts, deadline)
    except BaseException as raised:  # noqa: BLE001 - one place says which pass through
        caught = raised
    else:
        if "run" in facts and execution.attempts is not None:
            yield from execution.attempts.forget(_name(execution, facts))
        return None
    return (yield from _conclude(caught, execution, raw, facts, deadline))


async def attempt_async(
    execution: Execution, raw: bytes, facts: MessageFacts, deadline: RunDeadline
) -> Ended | None:
    """Do what :func:`attempt` does, on the running loop.

    Nearly every message is delivered for the first time, to a handler without a key: its run has no
    step but the handler's call, and needs neither generators nor their driver.
    """
    definition = execution.definition
    asks = execution.guard is not None or "run" in facts or "claim" in facts
    if asks or definition.takes_long(raw, facts["attributes"]):
        return await drive_async(attempt(execution, raw, facts, deadline), execution)
    is_plain = has_plain_call(execution)
    try:
        message = build_message(definition, raw, facts)
        if is_plain:  # a coroutine more is made for each message, and passed at each of its waits
            ctx = make_context(execution, facts, deadline)
            deadline.start()
            check_returned(await definition.call(message, ctx))
            deadline.end()
        else:
            await call_async(execution, CallHandler(message, facts, deadline))
    except BaseException as raised:  # noqa: BLE001 - one place says which pass through
        stopped = explain_deadline(definition, deadline, raised) if is_plain else raised
        caught = explain(stopped)
    else:
        return None
    return await drive_async(_conclude(caught, execution, raw, facts, deadline), execution)


def _conclude(
    raised: BaseException,
    execution: Execution,
    raw: bytes,
    facts: MessageFacts,
    deadline: RunDeadline,
) -> Steps[Ended]:
    """Decide what an error of a run means, and note it; raise what stops the worker or this run."""
    if issubclass(type(raised), STOPS) or stops_worker(raised):
        raise raised
    error = as_exception(raised)
    fault = find_worker_fault(raised)
    if fault is not None:
        error = yield from _wait_out(fault, error, execution, deadline)
    settlement = _settle(error, execution, facts, deadline.handler_seconds)
    error = make_readable(error)
    if isinstance(settlement, Fail) and settlement.calls_hook:
        yield CallHook(settlement, final_error(error), raw, facts)
    settlement = yield from _record(execution, facts, settlement)
    return Ended(settlement, _show(error, settlement))


def run_handler(
    execution: Execution,
    message: WorkerMessage[Any],
    facts: MessageFacts,
    deadline: RunDeadline,
) -> Steps[None]:
    """Call the handler, with its keys held if it has any; raises what it does."""
    locks = execution.guard
    if locks is None:
        yield CallHandler(message, facts, deadline)
        return
    yield from _end(execution, facts, "unrun")  # what waits for its key has not begun
    held = yield from locks.acquire(message, deadline)
    try:
        yield from _begin(execution, facts)
        yield CallHandler(message, facts, deadline)
    except GeneratorExit:
        raise
    except BaseException:
        yield from locks.release(held)
        raise
    yield from locks.complete(held, deadline)


def _begin(execution: Execution, facts: MessageFacts) -> Steps[None]:
    """Note that a redelivery's run begins, and correct its attempt; raise AlreadyFailed."""
    if "run" not in facts or execution.attempts is None:
        return
    earlier = yield from execution.attempts.begin(_name(execution, facts))
    if earlier is None:
        return
    failures = max(earlier.failures, facts["attempt"] - 1)
    decided = settle(Began(failures, earlier.losses, *earlier.last), execution.definition.options)
    facts["attempt"] = decided.attempt if isinstance(decided, Run) else max(1, decided.attempts)
    if isinstance(decided, Fail):
        raise AlreadyFailed(decided)


def _wait_out(
    fault: str, error: Exception, execution: Execution, deadline: RunDeadline
) -> Steps[WorkerFault]:
    """Keep the run's slot for a while; return the error that defers the message."""
    definition = execution.definition
    report_fault(definition.queue, fault)
    limit = definition.options.run_limit
    # A prefork child can't have its lease held for longer: its parent stops it at the deadline.
    yield Pause(PAUSE_SECONDS if deadline.restart(limit) else min(PAUSE_SECONDS, limit / 4))
    deferred = WorkerFault(fault, 1.0)
    deferred.__cause__ = error
    return deferred


def _settle(
    error: Exception, execution: Execution, facts: MessageFacts, elapsed_seconds: float
) -> Settlement:
    options, attempt = execution.definition.options, facts["attempt"]
    jitter = random.random()  # noqa: S311 - of a back-off
    try:
        return settle(Raised(error, elapsed_seconds, jitter), options, attempt=attempt)
    except Exception as broken:  # noqa: BLE001 - an error may answer isinstance() with an error
        queue, kind = execution.definition.queue, error_type(error)
        # A log that can't be written shows the error that is being handled, which raises again.
        with contextlib.suppress(Exception):
            logger.error(  # noqa: TRY400 - a traceback would look at the error again
                "%s raised %s, which can't be examined: %s", queue, kind, type(broken).__name__
            )
        other = HandlerExited(f"the handler raised {kind}")
        return settle(Raised(other, elapsed_seconds, jitter), options, attempt=attempt)


def _record(execution: Execution, facts: MessageFacts, settlement: Settlement) -> Steps[Settlement]:
    """Write to the store how the run ended; if that fails, the worker's side has to."""
    match settlement:
        case RetryRun():
            last = describe_failure(settlement)
            recorded = yield from _end(execution, facts, settlement.counts_as, last)
            return replace(settlement, recorded=recorded)
        case Defer():
            return replace(settlement, recorded=(yield from _end(execution, facts, "unrun")))
        case Fail():
            yield from _end(execution, facts, "unrun")
            return (yield from _sign(execution, facts, settlement))
    return settlement


def _check_claim(execution: Execution, facts: MessageFacts) -> Steps[None]:
    """Have a replay be the message that it claims to be, if it can show that."""
    claim, replays = facts.get("claim"), execution.replays
    if claim is None or replays is None:
        return
    definition = execution.definition
    if (yield from replays.check(definition.subscription, claim)):
        facts["message_id"], facts["replay_count"] = claim.message_id, claim.replay_count
        return
    logger.warning(
        "Message %s of %s says that it is a replay of %s, without the token of its dead letter; it "
        "is run as a message of its own",
        facts["pubsub_id"],
        definition.queue,
        claim.message_id,
        extra={"action": "replay_not_genuine", "handler": definition.queue},
    )


def _sign(execution: Execution, facts: MessageFacts, fail: Fail) -> Steps[Fail]:
    """Give a dead letter what its replay has to show."""
    message_id, token = facts["message_id"], ""
    if execution.replays is not None:
        token = yield from execution.replays.sign(execution.definition.subscription, message_id)
    return replace(
        fail, message_id=message_id, replay_count=facts["replay_count"], replay_token=token
    )


def _end(execution: Execution, facts: MessageFacts, end: End, last: str = "") -> Steps[bool]:
    """Note how the run ended; True if there is nothing left to note."""
    if execution.attempts is None or (end == "unrun" and "run" not in facts):
        return True
    return (yield from execution.attempts.end(_name(execution, facts), end, last))


def _name(execution: Execution, facts: MessageFacts) -> RunName:
    definition = execution.definition
    return RunName(
        definition.subscription,
        facts["pubsub_id"],
        facts.get("run") or new_token(),
        definition.options.retention,
    )


def _show(error: Exception, settlement: Settlement) -> Exception:
    """Return what the task raises, so that Celery reports the settlement as what it is."""
    match settlement:
        case Ack():
            shown: Exception = RunIgnored(settlement)
        case RetryRun() | Defer():
            shown = RunRetried(error, settlement)
        case _:
            final = final_error(error)
            return final if final is error else final.with_traceback(error.__traceback__)
    shown.__cause__ = error
    return shown
