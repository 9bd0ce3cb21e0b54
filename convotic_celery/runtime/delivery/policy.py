"""What becomes of a delivery to a handler before it is run: :class:`HandlerPolicy`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from convotic_celery.context.records import new_token
from convotic_celery.runtime.delivery.attributes import (
    TARGET_ATTRIBUTE,
    Origin,
    dead_letter_attributes,
)
from convotic_celery.runtime.delivery.counters import outcomes
from convotic_celery.runtime.delivery.observing import MessageSettled, ObservedMessage, observers
from convotic_celery.runtime.delivery.outcome import Arrived, Refused, settle
from convotic_celery.runtime.delivery.payload import PayloadBuilder, read_facts, task_id_of
from convotic_celery.runtime.delivery.settlement import Ack
from convotic_pubsub.queue import Acknowledge, Decision, Deliver, Received

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.settlement import Settlement
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["HandlerPolicy", "KnownFailures"]


class KnownFailures(Protocol):
    """What this needs of :class:`convotic_celery.runtime.delivery.attempts.AttemptLog`."""

    def known_failures(self, subscription: str, message_id: str) -> int:
        """Return how many failures of a message this process has still to write."""
        ...


class HandlerPolicy:
    """The :class:`convotic_pubsub.queue.DeliveryPolicy` of one handler. Pure, for any thread."""

    def __init__(
        self,
        definition: HandlerDefinition,
        attempts: KnownFailures | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._definition = definition
        self._queue = definition.queue
        self._subscription = definition.subscription
        self._topic = definition.topic
        self._options = definition.options
        self._attempts = attempts
        self._now = now
        self._payloads = PayloadBuilder.for_queue(definition.queue, definition.subscription)

    def decide(self, received: Received) -> Decision:
        """Say what becomes of a delivery."""
        target = received.attributes.get(TARGET_ATTRIBUTE)
        if target is not None or self._options.max_message_age is not None:
            is_for_us = target is None or target == self._queue
            age = (self._now() - received.published_at).total_seconds()
            settlement = settle(Arrived(is_for_us, age), self._options)
            if isinstance(settlement, Ack):
                outcomes.count(self._queue, settlement.outcome)
                self._report(received, settlement)
                return Acknowledge(settlement.outcome.replace("_", "-"))
        if received.delivery_attempt == 1:  # nearly every message
            return Deliver(self._payloads.build(received))
        return Deliver(self._redelivery(received))

    def _redelivery(self, received: Received) -> dict[str, object]:
        """Build the payload of a message that may have been run before; its run asks the store."""
        if self._attempts is None:  # the service's count is all that is known
            return self._payloads.build(received, attempt=max(1, received.delivery_attempt))
        known = self._attempts.known_failures(self._subscription, received.message_id)
        return self._payloads.build(received, attempt=known + 1, run=new_token())

    def reject_attributes(self, received: Received) -> dict[str, str]:
        """Return a dead letter's attributes for a message that Celery itself refused."""
        fail = settle(Refused("rejected"), self._options)
        attributes = dead_letter_attributes(
            fail,
            Origin(
                message_id=received.message_id,
                subscription=received.subscription,
                topic=self._topic,
                published_at=received.published_at,
            ),
        )
        self._report(received, fail, attributes)
        return attributes

    def _report(
        self,
        received: Received,
        settlement: Settlement,
        dead_letter: Mapping[str, str] | None = None,
    ) -> None:
        """Tell observers of a delivery that has no run."""
        if observers.settled:
            task_id = task_id_of(self._subscription, received.message_id)
            message = ObservedMessage(self._definition, read_facts(received), task_id)
            event = MessageSettled(message, settlement, time.time(), dead_letter=dead_letter)
            observers.report(observers.settled, event)
