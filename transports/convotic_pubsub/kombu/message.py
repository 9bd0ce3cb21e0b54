"""A message as Celery's side sees it, with Pub/Sub's ways to settle it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

from convotic_pubsub.celery.compressed import check_expanded_size
from convotic_pubsub.celery.task_headers import check_body
from convotic_pubsub.names import snippet
from convotic_pubsub.queue import Acknowledge, DeadLetter, Return

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.queue import PayloadDict, Received, Settlement

__all__ = ["Message"]


class Message(virtual.Message):
    """A kombu message with Pub/Sub's ways to settle it.

    All of them are non-blocking, thread-safe, and do nothing once the message is settled.
    """

    _delivery: Delivery | None = None

    def __init__(
        self, payload: PayloadDict, channel: Any = None, delivery: Delivery | None = None
    ) -> None:
        self._check_size(payload, channel)
        super().__init__(payload, channel=channel)
        self.payload_dict = payload
        self._delivery = delivery
        self._undecodable: Exception | None = None

    def _check_size(self, payload: PayloadDict, channel: Any) -> None:
        """Have kombu see an error instead of decompressing what would take up the memory."""
        compression = (payload.get("headers") or {}).get("compression")
        body = payload.get("body")
        if not compression or not body:
            return
        encoding = payload["properties"].get("body_encoding")
        decoded = channel.decode_body(body, encoding) if channel else body
        try:
            check_expanded_size(decoded if isinstance(decoded, bytes) else b"", compression)
        except ValueError as error:
            self.errors = [(type(error), error, None)]

    def __del__(self) -> None:
        # Celery forgets what it holds (ETA, rate limit) when it restarts its consumer.
        delivery = self._delivery
        if delivery is not None and not delivery.is_settled and not delivery.hold_until:
            delivery.subscription.abandon(delivery)

    @property
    def received(self) -> Received | None:
        """The delivery as Pub/Sub made it; None for transient traffic."""
        return self._delivery.received if self._delivery else None

    def started(self, hold_seconds: float) -> None:
        """The run begins now: keep the lease at most ``hold_seconds`` from now."""
        if self._delivery is not None:
            self._delivery.subscription.start(self._delivery, hold_seconds)

    def settle(self, settlement: Settlement) -> None:
        """Settle the message; the classes in :mod:`convotic_pubsub.queue` say how."""
        delivery = self._delivery
        if delivery is not None and delivery.subscription.settle(delivery, settlement):
            channel = self.channel
            if channel is not None:
                channel.forget(self)

    def settle_ack(self) -> None:
        """Acknowledge (what ``ack`` does after kombu's own checks).

        What could not be decoded is dead-lettered instead: Celery acknowledges that, and it would
        be lost.
        """
        problem = self._undecodable or (self.errors[0][1] if self.errors else None)
        if problem is not None:
            self.give_up(problem)
        else:
            self.settle(Acknowledge())

    def give_up(self, error: Exception) -> None:
        """Dead-letter a message that no consumer can take, with the reason ``invalid``."""
        if self.received is not None:
            attributes = {
                **_describe(self.received, "invalid"),
                "convotic-dead-letter-error-type": type(error).__name__,
                "convotic-dead-letter-error-message": snippet(str(error), 200),
            }
            self.settle(DeadLetter(attributes))

    def _decode(self) -> Any:
        try:
            body = super()._decode()
            if "task" in self.headers:
                check_body(body)
        except Exception as error:
            self._undecodable = error
            raise
        return body

    def settle_reject(self, *, requeue: bool) -> None:
        """Return it for delivery now, or give it up to the dead-letter topic."""
        if self._undecodable is not None and not requeue:
            self.give_up(self._undecodable)
            return
        delivery = self._delivery
        if requeue or delivery is None:
            self.settle(Return())
            return
        describe = getattr(delivery.subscription.spec.policy, "reject_attributes", None)
        self.settle(
            DeadLetter(
                describe(delivery.received)
                if describe
                else _describe(delivery.received, "rejected")
            )
        )


def _describe(received: Received, reason: str) -> dict[str, str]:
    return {
        "convotic-dead-letter-reason": reason,
        "convotic-dead-letter-message-id": received.message_id,
        "convotic-dead-letter-subscription": received.subscription,
    }
