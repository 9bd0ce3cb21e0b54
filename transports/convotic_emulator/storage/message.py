"""One message of one subscription: its row, and what memory knows about it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Holder", "Lease", "Message"]


class Lease(Protocol):
    """The lease of messages that were delivered together."""

    deadline_us: int

    def release(self, message: Message) -> None:
        """End the lease of one message."""
        ...


class Holder(Protocol):
    """The consumer that a message is leased to, counting what it holds."""

    held_messages: int
    held_bytes: int

    #: Counts signs of life: acknowledgements, new deadlines.
    sounds: int
    is_silent: bool


class Message:
    """One message of one subscription, while it is in memory.

    ``seq`` is the server-wide number in publish order. ``attempts`` counts nacks and lapses.
    ``generation`` is part of the ack id and grows with every redelivery, so that an old ack id
    never acknowledges a newer delivery. ``body`` is the serialized PubsubMessage, dropped once
    sent: only what is about to be sent is held with its data.
    """

    __slots__ = (
        "attempts",
        "body",
        "due_us",
        "generation",
        "holder",
        "key",
        "lease",
        "published_us",
        "seq",
        "size",
    )

    def __init__(
        self,
        seq: int,
        published_us: int,
        key: str | None,
        size: int,
        body: bytes | None,
    ) -> None:
        self.seq = seq
        self.published_us = published_us
        self.key = key
        self.size = size
        self.body = body
        self.attempts = 0
        self.generation = 0
        #: Not before this time, for a subscription with a retry policy.
        self.due_us = 0
        self.lease: Lease | None = None
        self.holder: Holder | None = None

    def __repr__(self) -> str:
        return f"Message({self.seq}, generation={self.generation}, attempts={self.attempts})"
