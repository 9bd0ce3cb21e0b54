"""One delivery of a message while it is in this process: its lease, its state, its place."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from convotic_pubsub.consume.subscription import QueueConsumer
    from convotic_pubsub.queue import PayloadDict, Received

__all__ = ["Delivery", "Recent", "Source", "State"]

_tags = itertools.count(1)


class State(enum.Enum):
    """Where a delivery stands. All changes are made by the I/O thread."""

    #: Its history is being read from the store.
    RECALLING = enum.auto()
    #: Ready, waiting for a free place.
    BUFFERED = enum.auto()
    #: It has a place; in the consumer's inbox or running.
    OFFERED = enum.auto()
    #: Being published to the dead-letter topic.
    BURYING = enum.auto()
    #: Failed; its lease runs out by itself. Takes no place.
    WAITING = enum.auto()
    #: Acknowledged here; the server has not confirmed yet. Takes no place.
    SETTLING = enum.auto()
    #: Given back; the server has not confirmed yet. Takes no place.
    RETURNING = enum.auto()
    #: Done with.
    GONE = enum.auto()


@dataclass(slots=True, eq=False)
class Source:
    """A stream (or the row of unary pulls) and what the server counts as outstanding on it."""

    limit: int
    outstanding: int = 0
    #: Of these, settled here; the server is about to confirm, and then has room for as many.
    leaving: int = 0
    #: Reads the stream until its end; None for unary pulls.
    reader: asyncio.Future[None] | None = None


class Recent:
    """The keys added last, at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: dict[tuple[str, str], None] = {}

    def add(self, key: tuple[str, str]) -> None:
        """Remember a key; the oldest is forgotten when there are too many."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]

    def discard(self, key: tuple[str, str]) -> None:
        """Forget a key."""
        self._keys.pop(key, None)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(slots=True, eq=False)
class Delivery:
    """A delivery and what the transport knows of it. Owned by the I/O thread.

    ``claim`` and ``settlement`` hold one item each; popping it is atomic, and only who gets it may
    hand the message over, or settle it.
    """

    consumer: QueueConsumer
    source: Source
    received: Received
    ack_id: str
    #: When it arrived, by the session's monotonic clock, as all times here.
    received_at: float
    lease_until: float
    state: State = State.RECALLING
    #: A running message is held at most until then, a waiting one just until then.
    hold_until: float = 0.0
    #: Whether somebody has been told that it runs past its deadline.
    lapse_seen: bool = False
    #: The lease timer's own note.
    timer_slot: int = 0
    payload: PayloadDict | None = None
    #: Whether the store remembers something about this message.
    remembered: bool = False
    tag: str = field(default_factory=lambda: str(next(_tags)))
    claim: list[bool] = field(default_factory=lambda: [True])
    settlement: list[bool] = field(default_factory=lambda: [True])

    @property
    def size(self) -> int:
        """Bytes of payload kept in memory."""
        return len(self.received.data)

    def take_claim(self) -> bool:
        """Return True once: to the thread that may hand it over or give it back unrun."""
        try:
            return self.claim.pop()
        except IndexError:
            return False

    def take_settlement(self) -> bool:
        """Return True once: to the thread that may settle it."""
        try:
            return self.settlement.pop()
        except IndexError:
            return False
