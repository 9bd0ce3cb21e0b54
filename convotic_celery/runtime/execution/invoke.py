"""One run of a handler: decode the data, make the context, call it within its ack deadline.

Says nothing about what an error means; that is ``outcome.py``.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded

from convotic_celery import log
from convotic_celery.context.delivery import Delivery
from convotic_celery.errors import AckDeadlineExceeded
from convotic_celery.runtime.delivery.error_text import error_text, error_type
from convotic_celery.runtime.delivery.settlement import Deferred, HandlerExited
from convotic_celery.runtime.delivery.steps import Ask, Pause
from convotic_celery.runtime.execution.coroutine import explain_cancellation
from convotic_celery.runtime.execution.dead_letter_hook import (
    call_hook_async,
    call_hook_sync,
    describe,
)
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
]

T = TypeVar("T")


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
                return explain_cancellation(_call_async(self, step))
            case Decode():
                message = asyncio.to_thread(build_message, self.definition, step.raw, step.facts)
                return explain_cancellation(message)
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


async def _call_async(execution: Execution, step: CallHandler) -> None:
    definition, resource = execution.definition, None
    if execution.batches is not None and not definition.middleware:
        await execution.batches.call(execution, step)
        return
    if execution.lifespans is not None:
        resource = await execution.lifespans.enter(definition)
    delivery = build_delivery(definition, step.facts, step.deadline, resource)
    log.use_fields(delivery.log_fields)  # in this run's task, which ends with it
    ctx = execution.contexts.async_context(delivery)
    if not definition.middleware:
        await _call_until_deadline(definition, step.message, ctx, step.deadline)
        return
    try:
        if execution.batches is not None:
            await _call_batched(execution, execution.batches, step, ctx)
        else:
            await _call_until_deadline(definition, step.message, ctx, step.deadline)
    except Exception as error:
        async with asyncio.timeout(max(1.0, definition.options.deadline_grace / 2)):
            await report_error_async(definition.middleware, step.message, ctx, error)
        raise


async def _call_batched(
    execution: Execution, batches: BatchCaller, step: CallHandler, ctx: object
) -> None:
    """Call a message's hooks around its wait for the batch. Hooks are not stopped at a deadline."""

    async def wait(_message: object, _ctx: object) -> None:
        await batches.call(execution, step)

    await compose_async(wait, execution.definition.middleware)(step.message, ctx)


async def _call_until_deadline(
    definition: HandlerDefinition, message: WorkerMessage[Any], ctx: object, control: RunDeadline
) -> None:
    coroutine = definition.call(message, ctx)
    try:
        waits_for = coroutine.send(None)
    except StopIteration as stop:
        check_returned(stop.value)
        return  # it never waited, so it was never stopped
    try:
        async with asyncio.timeout(0 if control.is_lost else control.time_left) as deadline:
            control.watch(deadline)
            check_returned(await _go_on(coroutine, waits_for))
    except TimeoutError as error:
        if not deadline.expired():
            raise  # the handler's own
        if control.is_lost:
            raise Deferred("another run has taken its key", 1.0) from error
        # Chained: the traceback shows where the handler stood.
        raise AckDeadlineExceeded(definition.queue, control.granted_seconds) from error


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Wait for what a coroutine that has begun waits for, and then for the coroutine itself."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as exc:  # noqa: BLE001 - cancellation goes where the wait is
                waits_for = coroutine.throw(exc)
            else:
                waits_for = coroutine.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _call_sync(execution: Execution, step: CallHandler) -> None:
    definition, resource = execution.definition, None
    if execution.lifespans is not None:
        resource = execution.lifespans.enter_sync(definition)
    delivery = build_delivery(definition, step.facts, step.deadline, resource)
    ctx = execution.contexts.sync_context(delivery)
    earlier = log.use_fields(delivery.log_fields)
    try:
        check_returned(definition.call(step.message, ctx))
    except SoftTimeLimitExceeded as stopped:
        error = AckDeadlineExceeded(definition.queue, step.deadline.granted_seconds)
        report_error_sync(definition.middleware, step.message, ctx, error)
        raise error from stopped
    except GeneratorExit as raised:
        # What closes the steps of a run is a GeneratorExit too, and passes through them.
        exited = HandlerExited(f"the handler raised {error_type(raised)}({error_text(raised)})")
        report_error_sync(definition.middleware, step.message, ctx, exited)
        raise exited from raised
    except Exception as error:
        report_error_sync(definition.middleware, step.message, ctx, error)
        raise
    finally:
        earlier.var.reset(earlier)
