"""Asks a queue's policy: what a delivery means, and what is remembered of it (I/O thread)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from convotic_pubsub.limits import cut_utf8
from convotic_pubsub.queue import Acknowledge, DeadLetter, Decision, History

if TYPE_CHECKING:
    from convotic_pubsub.queue import Incident, QueueSpec, Received

__all__ = ["GuardedPolicy"]

logger = logging.getLogger(__name__)

#: A policy's access to its store may take this long; then the store counts as unavailable.
_POLICY_SECONDS = 2.0


class GuardedPolicy:
    """The policy of one queue. Its errors and timeouts are logged and never raised."""

    def __init__(self, spec: QueueSpec) -> None:
        self._queue = spec.queue
        self._policy = spec.policy
        self._is_counted = spec.max_delivery_attempts > 0

    def decide(self, received: Received, history: History | None) -> Decision:
        """Return what becomes of a delivery; a policy that fails dead-letters it."""
        try:
            decision = self._policy.decide(received, history)
        except Exception as error:
            logger.exception(
                "The policy of queue %s failed on message %s; it goes to the dead-letter topic",
                self._queue,
                received.message_id,
                extra={"action": "policy_failed", "queue": self._queue},
            )
            return DeadLetter(
                {
                    "convotic-dead-letter-reason": "invalid",
                    "convotic-dead-letter-message-id": received.message_id,
                    "convotic-dead-letter-subscription": received.subscription,
                    "convotic-dead-letter-error-type": type(error).__name__,
                    "convotic-dead-letter-error-message": _describe(error),
                }
            )
        if isinstance(decision, Acknowledge) and decision.reason:
            logger.info(
                "Message %s of queue %s acknowledged unrun: %s",
                received.message_id,
                self._queue,
                decision.reason,
                extra={"action": "acknowledged_unrun", "reason": decision.reason},
            )
        return decision

    def may_have_history(self, delivery_attempt: int) -> bool:
        """Say whether something of earlier deliveries may be remembered.

        0 means that the subscription has no dead-letter policy, so the server does not count. If a
        policy was asked for, the subscription was made by others, and each message is looked up.
        """
        return delivery_attempt > 1 or (delivery_attempt == 0 and self._is_counted)

    async def load_history(self, received: Received) -> History | None:
        """Return what is remembered; None if nothing is, or the store is unavailable."""
        history = await self._ask(self._policy.load_history(received), "load_history")
        return history if isinstance(history, History) else None

    async def record(self, received: Received, incident: Incident) -> None:
        """Remember an incident."""
        await self._ask(self._policy.record(received, incident), "record")

    async def forget(self, received: Received) -> None:
        """Forget a message that is gone."""
        await self._ask(self._policy.forget(received), "forget")

    async def _ask(self, call: Awaitable[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_POLICY_SECONDS):
                return await call
        except Exception as error:  # noqa: BLE001  unavailable: the documented fallback holds
            logger.warning(
                "The store did not answer (%s) for queue %s; Pub/Sub's own count is used: %s: %s",
                what,
                self._queue,
                type(error).__name__,
                error,
                extra={"action": "store_away", "queue": self._queue},
            )
            return None


def _describe(error: Exception) -> str:
    """Return an error's text; making it may itself raise."""
    try:
        return cut_utf8(str(error))
    except Exception:  # noqa: BLE001  a user's __str__
        return ""
