"""One run of a handler: decode the data, make the context, call it within its ack deadline.

Says nothing about what an error means; that is ``outcome.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from billiard.exceptions import SoftTimeLimitExceeded

from convotic_celery import log
from convotic_celery.context.delivery import Delivery
from convotic_celery.errors import AckDeadlineExceeded
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.delivery.steps import Ask, Pause
from convotic_celery.runtime.execution.coroutine import explain, explain_cancellation
from convotic_celery.runtime.execution.dead_letter_hook import (
    call_hook_async,
    call_hook_sync,
    describe,
)
from convotic_celery.runtime.execution.exits import as_exception, call_for_future, stops_worker
from convotic_celery.sdk.message import WorkerMessage
from convotic_celery.sdk.middleware import (
    check_returned,
    compose_async,
    report_error_async,
    report_error_sync,
)

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.attempts import AttemptLog
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.delivery.replays import ReplayTokens
    from convotic_celery.runtime.delivery.settlement import Fail
    from convotic_celery.runtime.execution.deadline import RunDeadline
    from convotic_celery.runtime.execution.lifespans import Lifespans
    from convotic_celery.runtime.locks.key_lock import KeyLock, KeyStore
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = [
    "CallHandler",
    "CallHook",
    "ContextSource",
    "Decode",
    "Execution",
    "build_delivery",
    "build_message",
    "call_async",
    "explain_deadline",
    "has_plain_call",
    "key_lost",
    "make_context",
]

logger = logging.getLogger(__name__)


class ContextSource(Protocol):
    """Makes the ``ctx`` of each run: :class:`convotic_celery.context.services.Services`."""

    def async_context(self, delivery: Delivery) -> Any:
        """Return the context of an ``async def`` handler."""
        ...

    def sync_context(self, delivery: Delivery) -> Any:
        """Return the context of a ``def`` handler."""
        ...


class BatchCaller(Protocol):
    """Calls a handler with many messages: :class:`.Batches`."""

    #: At most so many messages gather; None: as many as the options say.
    bound: int | None

    async def call(self, execution: Execution, step: CallHandler) -> None:
        """Call the handler with this message and others; raises what that means for this one."""
        ...


def build_message(
    definition: HandlerDefinition, raw: bytes, facts: MessageFacts
) -> WorkerMessage[Any]:
    """Return the message as the handler sees it.

    Raises:
        InvalidMessage: The data is not JSON, or not what the handler's annotation says.
    """
    data, event = definition.decode(b"" if facts["empty"] else raw, facts["attributes"])
    return WorkerMessage(
        id=facts["message_id"],
        data=data,
        attributes=facts["attributes"],
        published_at=facts["published_at"],
        ordering_key=facts["ordering_key"],
        attempt=facts["attempt"],
        event=event,
    )


def build_delivery(
    definition: HandlerDefinition,
    facts: MessageFacts,
    control: RunDeadline | None = None,
    resource: object = None,
) -> Delivery:
    """Return what the context knows about the run."""
    return Delivery(
        handler=definition.queue,
        topic=definition.topic,
        message_id=facts["message_id"],
        module=definition.module,
        attempt=facts["attempt"],
        is_replay=facts["replay_count"] > 0,
        trace=facts["trace"],
        control=control,
        resource=resource,
    )


@dataclass(frozen=True, slots=True)
class Decode:
    """A step: make the handler's message of large data, off the event loop."""

    raw: bytes
    facts: MessageFacts


@dataclass(frozen=True, slots=True)
class Execution:
    """What a handler's runs need; decided once, when its task is made. None: it does not ask."""

    definition: HandlerDefinition
    contexts: ContextSource
    store: KeyStore
    attempts: AttemptLog | None = None
    replays: ReplayTokens | None = None
    guard: KeyLock | None = None
    lifespans: Lifespans | None = None
    #: Of a handler that takes many messages at once.
    batches: BatchCaller | None = None

    def do_async(self, step: object) -> Coroutine[Any, Any, Any]:
        """Do one step of a run of an ``async def`` handler."""
        match step:
            case CallHandler():
                return explain_cancellation(call_async(self, step))
            case Decode():
                decode = partial(build_message, self.definition, step.raw, step.facts)
                return explain_cancellation(asyncio.to_thread(partial(call_for_future, decode)))
            case CallHook():
                dead = describe(self.definition, step.fail, step.error, step.raw, step.facts)
                ctx = self.contexts.async_context(build_delivery(self.definition, step.facts))
                return explain_cancellation(call_hook_async(self.definition, dead, ctx))
            case Ask() | Pause():
                return explain_cancellation(self.store.do_async(step))
        raise TypeError(step)

    def do_sync(self, step: object) -> Any:
        """Do one step of a run of a plain ``def`` handler."""
        match step:
            case Decode():
                return build_message(self.definition, step.raw, step.facts)
            case CallHandler():
                return _call_sync(self, step)
            case CallHook():
                dead = describe(self.definition, step.fail, step.error, step.raw, step.facts)
                ctx = self.contexts.sync_context(build_delivery(self.definition, step.facts))
                return call_hook_sync(self.definition, dead, ctx)
            case Ask() | Pause():
                return self.store.do_sync(step)
        raise TypeError(step)


@dataclass(slots=True, eq=False)  # not frozen: one is made for each message
class CallHandler:
    """A step of a run: call the handler, with its middleware, until its deadline.

    In a prefork child plain code is stopped at the child's soft time limit. In a thread it can't be
    stopped: the lease lapses, which the transport warns of. Raises AckDeadlineExceeded where it was
    stopped, and Deferred if it has lost its key.
    """

    message: WorkerMessage[Any]
    facts: MessageFacts
    deadline: RunDeadline


@dataclass(frozen=True, slots=True)
class CallHook:
    """A step of a run: call ``on_dead_letter``, if there is one."""

    fail: Fail
    error: Exception
    raw: bytes
    facts: MessageFacts


def has_plain_call(execution: Execution) -> bool:
    """Say whether a handler's call has nothing around it but its deadline, as nearly every one."""
    return (
        execution.lifespans is None
        and execution.batches is None
        and not execution.definition.middleware
    )


async def call_async(execution: Execution, step: CallHandler) -> None:
    """Call an ``async def`` handler, or one that takes batches."""
    definition, resource = execution.definition, None
    if execution.batches is not None and not definition.middleware:
        await execution.batches.call(execution, step)
        return
    if execution.lifespans is not None:
        resource = await execution.lifespans.enter(definition)
    ctx = make_context(execution, step.facts, step.deadline, resource)
    if not definition.middleware:
        await _call_until_deadline(definition, step.message, ctx, step.deadline)
        return
    try:
        if execution.batches is not None:
            await _call_batched(execution, execution.batches, step, ctx)
        else:
            await _call_until_deadline(definition, step.message, ctx, step.deadline)
    except BaseException as raised:
        error: Any = explain(raised)
        if not issubclass(type(error), Exception):
            raise
        seconds = max(1.0, definition.options.deadline_grace / 2)
        try:
            async with asyncio.timeout(seconds):
                error = await report_error_async(definition.middleware, step.message, ctx, error)
        except TimeoutError:
            queue = definition.queue
            logger.warning("%s: on_error was stopped, it took more than %g s", queue, seconds)
        if error is raised:
            raise
        raise error  # noqa: B904 - it has its cause


def make_context(
    execution: Execution, facts: MessageFacts, deadline: RunDeadline, resource: object = None
) -> Any:
    """Return the ``ctx`` of this task's run, whose log lines say from now on which it is."""
    delivery = build_delivery(execution.definition, facts, deadline, resource)
    log.use_fields(delivery.log_fields)  # in this run's task, which ends with it
    return execution.contexts.async_context(delivery)


async def _call_batched(
    execution: Execution, batches: BatchCaller, step: CallHandler, ctx: object
) -> None:
    """Call a message's hooks around its wait for the batch. Hooks are not stopped at a deadline."""

    async def wait(_message: object, _ctx: object) -> None:
        await batches.call(execution, step)

    await compose_async(wait, execution.definition.middleware)(step.message, ctx)


async def _call_until_deadline(
    definition: HandlerDefinition, message: WorkerMessage[Any], ctx: object, deadline: RunDeadline
) -> None:
    deadline.start()
    try:
        check_returned(await definition.call(message, ctx))
    except BaseException as error:
        explained = explain_deadline(definition, deadline, error)
        if explained is error:
            raise
        raise explained  # noqa: B904 - it has its cause
    deadline.end()


def explain_deadline(
    definition: HandlerDefinition, deadline: RunDeadline, raised: BaseException
) -> BaseException:
    """Return what a call has raised: the deadline's error if that stopped it. Ends the deadline."""
    is_its_own, kind = deadline.end(), type(raised)
    is_stopped = (is_its_own and issubclass(kind, asyncio.CancelledError)) or (
        deadline.is_due and issubclass(kind, TimeoutError)
    )
    if not is_stopped:
        return raised
    error: Exception = (
        key_lost()
        if deadline.is_lost
        else AckDeadlineExceeded(definition.queue, deadline.granted_seconds)
    )
    error.__cause__ = raised  # the traceback shows where the handler stood
    return error


def key_lost() -> Deferred:
    """Return the error of a run whose key another one has: its message is delivered again soon."""
    return Deferred("another run has taken its key", 1.0)


def _call_sync(execution: Execution, step: CallHandler) -> None:
    definition, resource = execution.definition, None
    if execution.lifespans is not None:
        resource = execution.lifespans.enter_sync(definition)
    delivery = build_delivery(definition, step.facts, step.deadline, resource)
    ctx = execution.contexts.sync_context(delivery)
    earlier = log.use_fields(delivery.log_fields)
    try:
        check_returned(definition.call(step.message, ctx))
    except BaseException as raised:
        if stops_worker(raised):
            raise
        error = _explain_plain(definition, step.deadline, raised)
        error = report_error_sync(definition.middleware, step.message, ctx, error)
        if error is raised:
            raise
        raise error  # noqa: B904 - it has its cause
    finally:
        earlier.var.reset(earlier)


def _explain_plain(
    definition: HandlerDefinition, deadline: RunDeadline, raised: BaseException
) -> Exception:
    """Return what a plain handler has raised as the error that its message is settled by."""
    if issubclass(type(raised), SoftTimeLimitExceeded):
        error: Exception = AckDeadlineExceeded(definition.queue, deadline.granted_seconds)
        error.__cause__ = raised
        return error
    return as_exception(raised)
