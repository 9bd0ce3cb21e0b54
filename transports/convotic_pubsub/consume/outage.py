"""One line in the log when the server is gone, and one when it is back, not one for each queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from convotic_pubsub.outage import Outage

if TYPE_CHECKING:
    from convotic_pubsub.errors import PubsubTransportError

__all__ = ["PullOutage"]

logger = logging.getLogger(__name__)


class PullOutage:
    """Which of a session's queues find the server unavailable. Belongs to the I/O thread."""

    def __init__(self) -> None:
        self._queues: set[str] = set()
        self._outage = Outage()

    def begin(self, queue: str, error: PubsubTransportError) -> None:
        """Note that a queue can't be pulled; the first one is reported, for all of them."""
        if self._outage.miss():
            logger.warning(
                "%s; queues wait until it answers again",
                error,
                extra={"action": "pull_failed", "queue": queue},
            )
        self._queues.add(queue)

    def end(self, queue: str) -> None:
        """Note that a queue is pulled again; the first one is reported, for all of them."""
        if queue in self._queues and self._outage.end():
            logger.info(
                "Pub/Sub answers again",
                extra={"action": "pull_recovered", "queue": queue},
            )
        self.forget(queue)

    def forget(self, queue: str) -> None:
        """Note that a queue is not pulled any more."""
        self._queues.discard(queue)
        if not self._queues:
            self._outage.end()
