"""What of a channel is unsettled, and whether its prefetch count allows more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from convotic_pubsub.kombu.channel import Channel
    from convotic_pubsub.kombu.message import Message

__all__ = ["QoS"]


class QoS:
    """The unsettled messages of a channel, and whether its prefetch count allows more."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.prefetch_count = 0
        self.unsettled: MutableMapping[str, Message] = {}

    def room(self) -> float:
        """Return how many more messages may be handed over."""
        return self.prefetch_count - len(self.unsettled) if self.prefetch_count else math.inf

    def can_consume(self) -> bool:
        """Say whether one more message may be handed over."""
        return self.room() > 0

    def append(self, message: Message, delivery_tag: str | None) -> None:
        """Count a message until it is settled."""
        self.unsettled[str(delivery_tag)] = message

    def release(self) -> None:
        """Find messages by their tags only as long as somebody else has them."""
        self.unsettled = WeakValueDictionary(self.unsettled)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Do nothing: what is outstanding belongs to the session and goes on."""
