"""One run of a handler: decode the data, make the context, call it within its ack deadline.

Says nothing about what an error means; that is ``outcome.py``.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from billiard.exceptions import SoftTimeLimitExceeded

from convotic_celery.context.delivery import Delivery
from convotic_celery.errors import AckDeadlineExceeded
from convotic_celery.sdk.message import WorkerMessage

if TYPE_CHECKING:
    from convotic_celery.runtime.payload import MessageFacts
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["ContextSource", "build_delivery", "build_message", "run_async", "run_sync"]


class ContextSource(Protocol):
    """Makes the ``ctx`` of each run: :class:`convotic_celery.context.services.Services`."""

    def async_context(self, delivery: Delivery) -> Any:
        """Return the context of an ``async def`` handler."""
        ...

    def sync_context(self, delivery: Delivery) -> Any:
        """Return the context of a ``def`` handler."""
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
        published_at=datetime.fromisoformat(facts["published_at"]),
        ordering_key=facts["ordering_key"],
        attempt=facts["attempt"],
        event=event,
    )


def build_delivery(definition: HandlerDefinition, facts: MessageFacts) -> Delivery:
    """Return what the context knows about the run."""
    return Delivery(
        handler=definition.queue,
        topic=definition.topic,
        message_id=facts["message_id"],
        module=definition.module,
        attempt=facts["attempt"],
        is_replay=facts["replay_count"] > 0,
        trace=facts["trace"],
    )


async def run_async(
    definition: HandlerDefinition, message: WorkerMessage[Any], ctx: object
) -> None:
    """Call an ``async def`` handler; it is cancelled at its ack deadline.

    Raises:
        AckDeadlineExceeded: It was.
    """
    seconds = definition.options.ack_deadline
    try:
        async with asyncio.timeout(seconds) as deadline:
            await definition.handler(message, ctx)
    except TimeoutError as error:
        if not deadline.expired():
            raise  # the handler's own
        # Chained: the traceback shows where the handler stood.
        raise AckDeadlineExceeded(definition.queue, seconds) from error


def run_sync(definition: HandlerDefinition, message: WorkerMessage[Any], ctx: object) -> None:
    """Call a plain ``def`` handler.

    In a prefork child it is stopped at its ack deadline, which is the child's soft time limit. In a
    thread nobody can stop it: the lease lapses, which the transport warns of.

    Raises:
        AckDeadlineExceeded: It was stopped.
    """
    try:
        definition.handler(message, ctx)
    except SoftTimeLimitExceeded as error:
        raise AckDeadlineExceeded(definition.queue, definition.options.ack_deadline) from error
