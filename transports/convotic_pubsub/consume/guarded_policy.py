"""Asks a queue's policy what a delivery means (I/O thread)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from convotic_pubsub.limits import cut_utf8
from convotic_pubsub.queue import Acknowledge, DeadLetter, Decision

if TYPE_CHECKING:
    from convotic_pubsub.queue import QueueSpec, Received

__all__ = ["GuardedPolicy"]

logger = logging.getLogger(__name__)


class GuardedPolicy:
    """The policy of one queue. Its errors are logged and never raised."""

    def __init__(self, spec: QueueSpec) -> None:
        self._queue = spec.queue
        self._policy = spec.policy

    def decide(self, received: Received) -> Decision:
        """Return what becomes of a delivery; a policy that fails dead-letters it."""
        try:
            decision = self._policy.decide(received)
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


def _describe(error: Exception) -> str:
    """Return an error's text; making it may itself raise."""
    try:
        return cut_utf8(str(error))
    except Exception:  # noqa: BLE001  a user's __str__
        return ""
