"""A message as Celery's side sees it, with Pub/Sub's ways to settle it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

from convotic_pubsub.celery.compressed import expand
from convotic_pubsub.celery.task_headers import check_body
from convotic_pubsub.names import snippet
from convotic_pubsub.queue import RAW_CONTENT_TYPE, Acknowledge, DeadLetter, Return

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
        if payload.get("content-type") == RAW_CONTENT_TYPE:
            self._take_raw(payload, channel)
        else:
            super().__init__(self._expand(payload), channel=channel)
            self.headers = payload.get("headers") or {}
        self.payload_dict = payload
        self._delivery = delivery
        self._undecodable: Exception | None = None

    def _take_raw(self, payload: PayloadDict, channel: Any) -> None:
        """Do what kombu's constructors do for data as it is: of no encoding, in bytes."""
        self._raw = payload
        self.errors = []
        self.channel = channel
        self.properties = properties = payload["properties"]
        self.delivery_tag = properties["delivery_tag"]
        self.delivery_info = properties.get("delivery_info") or {}
        self.content_type = RAW_CONTENT_TYPE
        self.content_encoding = payload.get("content-encoding")
        self.headers = payload.get("headers") or {}
        self.body = payload.get("body")
        self._decoded_cache = self.accept = None
        self._state = "RECEIVED"

    def _expand(self, payload: PayloadDict) -> PayloadDict:
        """Return the payload with its body decompressed, which kombu would do without bounds."""
        headers, body = payload.get("headers") or {}, payload.get("body")
        compression = headers.get("compression")
        if not compression or not isinstance(body, bytes):
            return payload
        try:
            expanded = expand(body, compression)
        except ValueError as error:
            self.errors = [(type(error), error, None)]  # so that kombu does not try
            return payload
        if expanded is None:
            return payload
        rest = {name: value for name, value in headers.items() if name != "compression"}
        return {**payload, "body": expanded, "headers": rest}

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
        if self._problem is not None:
            self.give_up(self._problem)
        else:
            self.settle(Acknowledge())

    @property
    def _problem(self) -> Exception | None:
        """Why it can't be decoded, or decompressed."""
        return self._undecodable or (self.errors[0][1] if self.errors else None)

    def give_up(self, error: Exception) -> None:
        """Dead-letter a message that no consumer can take, with the reason ``invalid``."""
        if self.received is not None:
            self.settle(DeadLetter(_describe(self.received, "invalid", error)))

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
        """Return it for delivery now, or give it up to the dead-letter topic.

        Who rejects it because of an error does so while handling that: it is the reason.
        """
        if self._problem is not None and not requeue:
            self.give_up(self._problem)
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
                else _describe(delivery.received, "rejected", self._find_error())
            )
        )

    def _find_error(self) -> BaseException | None:
        """Return the error for which this is rejected now; Celery's name for an unknown task."""
        error = sys.exception()
        task = self.headers.get("task")
        if isinstance(error, KeyError) and error.args == (task,):
            return NotRegistered(f"the worker has no task {task!r}")
        return error


class NotRegistered(LookupError):
    """No task has the name that the message wants; called as Celery calls it."""


def _describe(
    received: Received, reason: str, error: BaseException | None = None
) -> dict[str, str]:
    attributes = {
        "convotic-dead-letter-reason": reason,
        "convotic-dead-letter-message-id": received.message_id,
        "convotic-dead-letter-subscription": received.subscription,
    }
    if error is not None:
        attributes["convotic-dead-letter-error-type"] = type(error).__name__
        attributes["convotic-dead-letter-error-message"] = snippet(str(error), 200)
    return attributes
