"""What of a channel is unsettled, and whether its prefetch count allows more."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from convotic_pubsub.kombu.message import Message

__all__ = ["QoS"]


class QoS:
    """The unsettled messages of a channel, and whether its prefetch count allows more.

    Thread-safe: the pool's threads settle while the channel's thread goes through what is left.
    """

    def __init__(self) -> None:
        self.prefetch_count = 0
        self._lock = threading.Lock()
        self._messages: MutableMapping[str, Message] = {}

    def room(self) -> float:
        """Return how many more messages may be delivered."""
        return self.prefetch_count - len(self._messages) if self.prefetch_count else math.inf

    def can_consume(self) -> bool:
        """Say whether one more message may be delivered."""
        return self.room() > 0

    def append(self, message: Message, delivery_tag: str | None) -> None:
        """Count a message until it is settled."""
        with self._lock:
            self._messages[str(delivery_tag)] = message

    def find(self, delivery_tag: str) -> Message | None:
        """Return an unsettled message; None for another."""
        with self._lock:
            return self._messages.get(delivery_tag)

    def remove(self, delivery_tag: str) -> None:
        """Stop counting a message."""
        with self._lock:
            self._messages.pop(delivery_tag, None)

    def tags(self) -> list[str]:
        """Return the tags of what is unsettled now."""
        with self._lock:
            return list(self._messages)

    def release(self) -> None:
        """Find messages by their tags only as long as somebody else has them."""
        with self._lock:
            self._messages = WeakValueDictionary(self._messages)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing: what is outstanding belongs to the session and goes on."""
