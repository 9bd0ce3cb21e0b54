"""One ordering key, one message at a time: the lines in which messages wait. I/O thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery

__all__ = ["KeyLines"]


class KeyLines:
    """Messages of each ordering key in the order of their arrival; only the head may run.

    A head that failed keeps its place until it comes again: it holds its key. Messages without a
    key are in no line and always at the head.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[Delivery]] = {}

    def enter(self, delivery: Delivery, instead_of: Delivery | None = None) -> None:
        """Put a delivery at the end of its key's line, or in the place of its earlier delivery."""
        key = delivery.received.ordering_key
        if not key:
            return
        line = self._lines.setdefault(key, deque())
        if instead_of is not None and instead_of in line:
            line[line.index(instead_of)] = delivery
        else:
            line.append(delivery)

    def is_head(self, delivery: Delivery) -> bool:
        """Say whether nothing of its key is before this delivery."""
        line = self._lines.get(delivery.received.ordering_key)
        return not line or line[0] is delivery

    def leave(self, delivery: Delivery) -> Delivery | None:
        """Take out a delivery that is done with; return the one that is at the head now."""
        key = delivery.received.ordering_key
        line = self._lines.get(key)
        if not line or delivery not in line:
            return None
        line.remove(delivery)
        if not line:
            del self._lines[key]
            return None
        return line[0]

    def cut(self, delivery: Delivery) -> list[Delivery]:
        """Take out a delivery that the server has again, and all behind it; return these.

        The server delivers them anew after it, so keeping them here would break the order.
        """
        key = delivery.received.ordering_key
        line = self._lines.get(key)
        if not line or delivery not in line:
            return []
        kept: deque[Delivery] = deque()
        while line[0] is not delivery:
            kept.append(line.popleft())
        line.popleft()
        if kept:
            self._lines[key] = kept
        else:
            del self._lines[key]
        return list(line)
