"""Celery's own queues: kombu's envelope on the wire, nothing counted, and what an ETA means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.celery.task_headers import check_task
from convotic_pubsub.errors import DelayTooLong
from convotic_pubsub.names import resource_id, snippet
from convotic_pubsub.queue import (
    RAW_CONTENT_TYPE,
    DeadLetter,
    Decision,
    Defer,
    Deliver,
    QueueSpec,
    Received,
    SendAgain,
)

if TYPE_CHECKING:
    from convotic_pubsub.options import TransportOptions

__all__ = ["EnvelopePolicy", "celery_queue", "check_eta"]

#: A message that is due later than this is held back, by its lease alone: it takes no room in the
#: worker, whose prefetch count others need. Celery gets it so long before it is due, and waits.
_HOLD_BACK_SECONDS, _EARLY_SECONDS = 10.0, 2.0
#: How long an ordinary queue keeps a message, and what is left of that to run it.
_RETENTION_SECONDS, _SPARE_SECONDS = 7 * 24 * 3600, 3600


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EnvelopePolicy:
    """Delivers what decodes, when it is due; dead-letters what does not, with the reason."""

    def __init__(
        self, now: Callable[[], datetime] = _utc_now, *, max_deliveries: int | None = None
    ) -> None:
        self._now = now
        #: A task that is not due has not run. It does not come near to what the service allows: one
        #: delivery for each worker that ends while it waits, and many do within seven days.
        self._often = math.ceil(max_deliveries / 2) if max_deliveries else math.inf

    def decide(self, received: Received) -> Decision:
        """Decode the envelope; a message that isn't one can never run and is dead-lettered."""
        try:
            payload = decode_envelope(received.data)
            check_task(payload["headers"], payload["properties"])
            if payload.get("content-type") == RAW_CONTENT_TYPE:
                raise ValueError(f"content type {RAW_CONTENT_TYPE} has no envelope")  # noqa: TRY301
        except ValueError as error:
            return DeadLetter(
                {
                    "convotic-dead-letter-reason": "invalid",
                    "convotic-dead-letter-message-id": received.message_id,
                    "convotic-dead-letter-subscription": received.subscription,
                    "convotic-dead-letter-error-message": snippet(str(error), 200),
                }
            )
        delay = _seconds_until_due(payload, self._now())
        if delay > _HOLD_BACK_SECONDS:
            if received.delivery_attempt >= self._often:
                return SendAgain()
            return Defer(delay - _EARLY_SECONDS)
        if received.redelivered:
            payload["properties"]["delivery_info"]["redelivered"] = True
        return Deliver(payload)


def celery_queue(queue: str, options: TransportOptions) -> QueueSpec:
    """Return the specification of an ordinary queue: topic and subscription of one name."""
    name = resource_id(queue, options.prefix)
    dead_letter = resource_id(f"{queue}.dead-letter", options.prefix)
    return QueueSpec(
        queue=queue,
        topic=name,
        subscription=name,
        policy=EnvelopePolicy(max_deliveries=options.max_delivery_attempts),
        dead_letter_topic=dead_letter,
        max_delivery_attempts=options.max_delivery_attempts,
        ack_deadline_seconds=options.visibility_timeout_seconds,
        max_lease_seconds=options.max_lease_seconds,
        concurrency=options.default_max_outstanding,
        buffer_messages=0,
        max_waiting_retries=1_000_000,
        message_retention_seconds=_RETENTION_SECONDS,
        labels={"convotic": "celery-queue"},
        on_dead_letter=options.on_dead_letter and partial(options.on_dead_letter, queue),
    )


def check_eta(message: Mapping[str, Any]) -> None:
    """Refuse a task that is due when its queue has dropped it.

    Raises:
        DelayTooLong: with the limit.
    """
    longest = _RETENTION_SECONDS - _SPARE_SECONDS
    delay = _seconds_until_due(message, _utc_now())
    if delay > longest:
        raise DelayTooLong(
            f"the task is due in {delay / 86_400:.1f} days, and Pub/Sub keeps its message for "
            f"{_RETENTION_SECONDS // 86_400} days: eta and countdown may be {longest:,} seconds "
            "at most"
        )


def _seconds_until_due(message: Mapping[str, Any], now: datetime) -> float:
    """Return how long a task is to wait; 0 for one without an ETA, or with none that is a time."""
    eta = message["headers"].get("eta")
    if not eta:
        return 0.0
    try:
        due = eta if isinstance(eta, datetime) else datetime.fromisoformat(eta)
        return ((due if due.tzinfo else due.replace(tzinfo=UTC)) - now).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0  # Celery's to refuse
