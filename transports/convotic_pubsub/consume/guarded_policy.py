"""Asks a queue's policy: what a delivery means, and what is remembered of it (I/O thread)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from convotic_pubsub.queue import Acknowledge, DeadLetter, Decision, History

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.queue import Incident, QueueSpec

__all__ = ["PolicyCalls"]

logger = logging.getLogger(__name__)

#: A policy's store access may take this long; then the store counts as away.
_POLICY_SECONDS = 2.0


class PolicyCalls:
    """The policy of one queue. What fails in it, or takes too long, is a line in the log."""

    def __init__(self, spec: QueueSpec) -> None:
        self._queue = spec.queue
        self._policy = spec.policy
        self._is_counted = spec.max_delivery_attempts > 0

    def decide(self, delivery: Delivery, history: History | None) -> Decision:
        """Return what becomes of a delivery; a policy that fails dead-letters it."""
        received = delivery.received
        try:
            decision = self._policy.decide(received, history)
        except Exception as error:
            logger.exception(
                "The policy of queue %s failed on message %s; it goes to the dead-letter topic",
                self._queue,
                received.message_id,
                extra={"action": "policy_failed", "queue": self._queue},
            )
            return DeadLetter({"convotic-dead-letter-error-message": str(error)})
        if isinstance(decision, Acknowledge) and decision.reason:
            logger.info(
                "Message %s of queue %s acknowledged unrun: %s",
                received.message_id,
                self._queue,
                decision.reason,
                extra={"action": "acknowledged_unrun", "reason": decision.reason},
            )
        return decision

    def may_remember(self, delivery_attempt: int) -> bool:
        """Say whether something of a message may be remembered.

        0 means that the subscription has no dead-letter policy, so the server does not count; where
        one was asked for, somebody else made the subscription, and each message must be looked up.
        """
        return delivery_attempt > 1 or (delivery_attempt == 0 and self._is_counted)

    async def recall(self, delivery: Delivery) -> History | None:
        """Return what is remembered; None if nothing is, or the store is away."""
        delivery.remembered = True
        recalled = await self._ask(self._policy.recall(delivery.received), "recall")
        return recalled if isinstance(recalled, History) else None

    async def record(self, delivery: Delivery, incident: Incident) -> None:
        """Remember a failure or a hand-back."""
        delivery.remembered = True
        await self._ask(self._policy.record(delivery.received, incident), "record")

    async def forget(self, delivery: Delivery) -> None:
        """Forget a message that is gone."""
        await self._ask(self._policy.forget(delivery.received), "forget")

    async def _ask(self, call: Awaitable[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_POLICY_SECONDS):
                return await call
        except Exception as error:  # noqa: BLE001  the store is away: the documented fallback holds
            logger.warning(
                "The store did not answer (%s) for queue %s; Pub/Sub's own count is used: %s: %s",
                what,
                self._queue,
                type(error).__name__,
                error,
                extra={"action": "store_away", "queue": self._queue},
            )
            return None
