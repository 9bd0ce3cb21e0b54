"""What becomes of a delivery to a handler, and what is remembered of it.

Two budgets, see ``docs/delivery.md``. *Failures* are runs that raised or were stopped; they are
written to the store when they happen and are exact. *Losses* are the deliveries that Pub/Sub counts
beyond failures and hand-backs: a process died with the message. Without a store nothing is known of
either, and Pub/Sub's count of deliveries stands for both.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from convotic_celery.runtime.delivery.attributes import (
    TARGET_ATTRIBUTE,
    DeadLetterReason,
    Failure,
    dead_letter_attributes,
    replay_count,
)
from convotic_celery.runtime.delivery.counters import outcomes
from convotic_celery.runtime.delivery.outcome import count_hook_losses
from convotic_celery.runtime.delivery.payload import PayloadBuilder, first_message_id
from convotic_pubsub.queue import (
    Acknowledge,
    DeadLetter,
    Decision,
    Deliver,
    History,
    Incident,
    Received,
)

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["AttemptMemory", "HandlerPolicy"]


class AttemptMemory(Protocol):
    """What this needs of :class:`convotic_celery.context.attempts.AttemptLog`.

    All raise while the store is away; the transport then takes the history as unknown.
    """

    async def recall(self, subscription: str, message_id: str) -> tuple[int, int]:
        """Return (failures, hand-backs)."""
        ...

    async def record(
        self, subscription: str, message_id: str, incident: Incident, ttl_seconds: float
    ) -> None:
        """Count one more, and keep the counts so long from now."""
        ...

    async def forget(self, subscription: str, message_id: str) -> None:
        """Drop both counts."""
        ...


class HandlerPolicy:
    """The :class:`convotic_pubsub.queue.DeliveryPolicy` of one handler.

    ``decide`` is pure and safe on any thread; the async methods belong to the transport's loop.
    """

    def __init__(
        self,
        definition: HandlerDefinition,
        memory: AttemptMemory | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = definition.queue
        self._subscription = definition.subscription
        self._topic = definition.topic
        self._max_runs = definition.options.max_retries + 1
        self._max_losses = definition.options.max_worker_losses
        self._hook_losses = count_hook_losses(definition.options)
        age = definition.options.max_message_age
        self._max_age = None if age is None else timedelta(seconds=age)
        self._now = now
        #: Pub/Sub keeps the message at most so long, so nobody asks for its counts later.
        self._retention = definition.options.retention
        self._memory = memory
        self._payloads = PayloadBuilder.for_queue(definition.queue, definition.subscription)

    def decide(self, received: Received, history: History | None) -> Decision:
        """Say what becomes of a delivery."""
        target = received.attributes.get(TARGET_ATTRIBUTE)
        if target is not None and target != self._queue:
            outcomes.count(self._queue, "other_target")
            return Acknowledge("other-target")
        if self._max_age is not None and self._now() - received.published_at > self._max_age:
            outcomes.count(self._queue, "expired")
            return Acknowledge("expired")
        if received.delivery_attempt <= 1 and history is None:  # nearly every message
            return Deliver(self._payloads.build(received, attempt=1, losses=0))
        return self._decide_again(received, history)

    def reject_attributes(self, received: Received) -> dict[str, str]:
        """Return a dead letter's attributes for a message that Celery itself refused."""
        return self._give_up(received, "rejected", attempts=0)

    async def load_history(self, received: Received) -> History | None:
        """Read the counts of a redelivered message."""
        if self._memory is None:
            return None
        failures, hand_backs = await self._memory.recall(self._subscription, received.message_id)
        return History(failures=failures, hand_backs=hand_backs)

    async def record(self, received: Received, incident: Incident) -> None:
        """Count one more failure or hand-back."""
        if self._memory is not None and incident != "start":
            await self._memory.record(
                self._subscription, received.message_id, incident, self._retention
            )

    async def forget(self, received: Received) -> None:
        """Drop the counts of a message that is gone."""
        if self._memory is not None:
            await self._memory.forget(self._subscription, received.message_id)

    def _decide_again(self, received: Received, history: History | None) -> Decision:
        """Decide on a redelivery: has it used up one of its budgets?"""
        earlier = max(0, received.delivery_attempt - 1)
        if history is None:
            attempt, losses = earlier + 1, 0
            # Every earlier delivery was a failure or a loss, and we can't say which.
            beyond = earlier - self._max_runs - self._max_losses
        else:
            attempt = history.failures + 1
            losses = max(0, earlier - history.failures - history.hand_backs)
            beyond = losses - self._max_losses
        reason: DeadLetterReason
        if history is not None and history.failures >= self._max_runs:
            # The process died after the last failure was counted and before its dead letter was
            # out; or the hook is still to be told of a run that prefork had to kill.
            reason, attempts = "max-retries-exceeded", history.failures
        elif beyond >= 0:
            reason, attempts = "worker-lost", earlier
        else:
            return Deliver(self._payloads.build(received, attempt=attempt, losses=losses))
        if beyond < self._hook_losses and self._hook_losses:
            # A run that only calls the hook, and raises GivenUp then.
            return Deliver(
                self._payloads.build(received, attempt=attempts, losses=losses, give_up=reason)
            )
        return DeadLetter(self._give_up(received, reason, attempts=attempts))

    def _give_up(
        self, received: Received, reason: DeadLetterReason, *, attempts: int
    ) -> dict[str, str]:
        return dead_letter_attributes(
            Failure(
                reason=reason,
                message_id=first_message_id(received),
                attempts=attempts,
                subscription=received.subscription,
                topic=self._topic,
                published_at=received.published_at,
                replay_count=replay_count(received.attributes),
            )
        )
