"""One ordering key, one message at a time: the queues in which messages wait. I/O thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery

__all__ = ["OrderingQueues"]


class OrderingQueues:
    """Messages of each ordering key in the order of their arrival; only the head may run.

    A head that failed keeps its position until it is redelivered: it holds its key. Messages
    without a key are in no queue and always at the head.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[Delivery]] = {}

    def enter(self, delivery: Delivery, instead_of: Delivery | None = None) -> None:
        """Append a delivery to its key's queue, or put it where its earlier delivery was."""
        key = delivery.received.ordering_key
        if not key:
            return
        queue = self._queues.setdefault(key, deque())
        if instead_of is not None and instead_of in queue:
            queue[queue.index(instead_of)] = delivery
        else:
            queue.append(delivery)

    def is_head(self, delivery: Delivery) -> bool:
        """Say whether this delivery is the first of its key."""
        queue = self._queues.get(delivery.received.ordering_key)
        return not queue or queue[0] is delivery

    def leave(self, delivery: Delivery) -> Delivery | None:
        """Take out a delivery that is done with; return the new head."""
        key = delivery.received.ordering_key
        queue = self._queues.get(key)
        if not queue or delivery not in queue:
            return None
        queue.remove(delivery)
        if not queue:
            del self._queues[key]
            return None
        return queue[0]

    def cut(self, delivery: Delivery) -> list[Delivery]:
        """Take out a delivery that the server has again, and all behind it; return these.

        The server redelivers them after it, so keeping them here would break the order.
        """
        key = delivery.received.ordering_key
        queue = self._queues.get(key)
        if not queue or delivery not in queue:
            return []
        kept: deque[Delivery] = deque()
        while queue[0] is not delivery:
            kept.append(queue.popleft())
        queue.popleft()
        if kept:
            self._queues[key] = kept
        else:
            del self._queues[key]
        return list(queue)
