"""The policy of Celery's own queues: kombu's envelope on the wire, nothing counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.celery.task_headers import check_task
from convotic_pubsub.names import resource_id, snippet
from convotic_pubsub.queue import (
    DeadLetter,
    Decision,
    Deliver,
    History,
    Incident,
    QueueSpec,
    Received,
)

if TYPE_CHECKING:
    from convotic_pubsub.options import TransportOptions

__all__ = ["EnvelopePolicy", "celery_queue"]


class EnvelopePolicy:
    """Hand over what decodes; dead-letter what does not, with the reason."""

    def decide(self, received: Received, history: History | None) -> Decision:
        """Decode the envelope; a message that isn't one can never run and is given up at once."""
        del history
        try:
            payload = decode_envelope(received.data)
            check_task(payload["headers"], payload["properties"])
        except ValueError as error:
            return DeadLetter(
                {
                    "convotic-dead-letter-reason": "invalid",
                    "convotic-dead-letter-message-id": received.message_id,
                    "convotic-dead-letter-subscription": received.subscription,
                    "convotic-dead-letter-error-message": snippet(str(error), 200),
                }
            )
        info = payload["properties"].get("delivery_info") or {}
        payload["properties"]["delivery_info"] = info
        if received.redelivered:
            info["redelivered"] = True
        return Deliver(payload)

    async def load_history(self, received: Received) -> History | None:
        """Nothing is remembered for ordinary messages."""

    async def record(self, received: Received, incident: Incident) -> None:
        """Nothing is remembered for ordinary messages."""

    async def forget(self, received: Received) -> None:
        """Nothing is remembered for ordinary messages."""


_POLICY = EnvelopePolicy()


def celery_queue(queue: str, options: TransportOptions) -> QueueSpec:
    """Return the specification of an ordinary queue: topic and subscription of one name."""
    name = resource_id(queue, options.prefix)
    dead_letter = resource_id(f"{queue}.dead-letter", options.prefix)
    return QueueSpec(
        queue=queue,
        topic=name,
        subscription=name,
        policy=_POLICY,
        dead_letter_topic=dead_letter,
        ack_deadline_seconds=options.visibility_timeout_seconds,
        max_lease_seconds=options.max_lease_seconds,
        concurrency=options.default_max_outstanding,
        buffer_messages=0,
        max_waiting_retries=1_000_000,
        labels={"convotic": "celery-queue"},
    )
