"""One delivery of a message while it is in this process, and all of them together."""

from __future__ import annotations

import enum
import itertools
from collections.abc import ValuesView
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from convotic_pubsub.queue import PayloadDict, QueueSpec, Received, Settlement

__all__ = ["Delivery", "Outstanding", "Owner", "PullStream", "State"]

_tags = itertools.count(1)


class State(enum.IntEnum):
    """Where a delivery stands; ``flow.py`` has the transitions. The I/O thread makes them."""

    #: Just arrived.
    NEW = enum.auto()
    #: Ready, waiting for a free slot.
    BUFFERED = enum.auto()
    #: It has a slot; in the consumer's inbox or running.
    DISPATCHED = enum.auto()
    #: Being published to the dead-letter topic.
    DEAD_LETTERING = enum.auto()
    #: Not acknowledged; its lease runs out by itself. Takes no slot.
    WAITING = enum.auto()
    #: Acknowledged here; the server has not confirmed yet. Takes no slot.
    SETTLING = enum.auto()
    #: Given back; the server has not confirmed yet. Takes no slot.
    RETURNING = enum.auto()
    #: Done with.
    GONE = enum.auto()


class Owner(Protocol):
    """The subscription of a delivery, as consumers see it. Thread-safe."""

    spec: QueueSpec

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery; False, and no effect, if it is settled already."""
        ...

    def abandon(self, delivery: Delivery) -> None:
        """Give back a delivery that can no longer be settled; a started run lets its lease end."""
        ...

    def start(self, delivery: Delivery, hold_seconds: float) -> None:
        """A run begins: keep the lease for at most ``hold_seconds`` from now."""
        ...

    def resume(self) -> None:
        """Pull again: the consumer has reached what was taken from it."""
        ...


@dataclass(slots=True, eq=False)
class PullStream:
    """A stream (or one unary pull) and what the server counts as outstanding on it."""

    limit: int
    outstanding: int = 0
    outstanding_bytes: int = 0
    #: Of these, settled here; the server is about to confirm, and then has room for as many.
    leaving: int = 0
    leaving_bytes: int = 0
    #: Reads the stream until its end; None for unary pulls.
    reader: asyncio.Future[None] | None = None
    #: When a heartbeat was sent that nothing has followed yet; 0: there is none.
    asked_at: float = 0.0

    def enter(self, size: int) -> None:
        """Count a message that has arrived."""
        self.outstanding += 1
        self.outstanding_bytes += size

    def start_leaving(self, size: int) -> None:
        """Count a message that was settled here."""
        self.leaving += 1
        self.leaving_bytes += size

    def leave(self, size: int, *, was_leaving: bool) -> None:
        """Uncount a message that the server has no longer outstanding here."""
        self.outstanding -= 1
        self.outstanding_bytes -= size
        if was_leaving:
            self.leaving -= 1
            self.leaving_bytes -= size

    def is_full(self, max_bytes: int) -> bool:
        """Say whether the server sends nothing more before something here is settled."""
        staying_bytes = self.outstanding_bytes - self.leaving_bytes
        return self.outstanding - self.leaving >= self.limit or staying_bytes >= max_bytes


@dataclass(slots=True, eq=False)
class Delivery:
    """A delivery and what the transport knows of it. Owned by the I/O thread.

    ``_token`` and ``_settlement`` hold one item each; popping it is atomic, and only the thread
    that gets it may run the message, or settle it.
    """

    subscription: Owner
    source: PullStream
    received: Received
    #: Bytes of payload kept in memory.
    size: int
    ack_id: str
    #: When it arrived, by the session's monotonic clock, as all times here.
    received_at: float
    lease_until: float
    state: State = State.NEW
    #: A running message is held at most until then, a waiting one just until then.
    hold_until: float = 0.0
    #: Whether the log has that it runs past its deadline.
    lapse_seen: bool = False
    #: The lease timer's own note.
    timer_slot: int = 0
    payload: PayloadDict | None = None
    has_slot: bool = False
    #: Whether its stream counts it as leaving.
    is_leaving: bool = False
    buffered_at: float = 0.0
    dispatched_at: float = 0.0
    tag: str = field(default_factory=lambda: str(next(_tags)))
    # Copies made in C: one of each is made for each message.
    _token: list[bool] = field(default_factory=[True].copy)
    _settlement: list[bool] = field(default_factory=[True].copy)

    @property
    def key(self) -> tuple[str, str]:
        """Subscription and message id: what a copy of the same message has in common with it."""
        return (self.received.subscription, self.received.message_id)

    def check_out(self) -> bool:
        """Return True once: to the thread that may run it or give it back unrun."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def take_settlement(self) -> bool:
        """Return True once: to the thread that may settle it."""
        try:
            return self._settlement.pop()
        except IndexError:
            return False

    @property
    def is_settled(self) -> bool:
        """Whether somebody has taken the settlement."""
        return not self._settlement


class Outstanding:
    """Every delivery in this process, and the messages that it has lately given back."""

    def __init__(self, max_returned: int = 10_000) -> None:
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self._returned: dict[tuple[str, str], None] = {}
        self._max_returned = max_returned

    def find(self, key: tuple[str, str]) -> Delivery | None:
        """Return the delivery of a message that is here, by :attr:`Delivery.key`."""
        return self._deliveries.get(key)

    def was_returned(self, key: tuple[str, str]) -> bool:
        """Say whether this process has had a message and given it back, lately."""
        return key in self._returned

    def add(self, delivery: Delivery) -> None:
        """Keep a delivery; it stands for its message from now on."""
        self._deliveries[delivery.key] = delivery

    def remove(self, delivery: Delivery, *, is_acknowledged: bool) -> None:
        """Forget a delivery, and remember its message unless it was acknowledged."""
        key = delivery.key
        if self._deliveries.get(key) is delivery:
            del self._deliveries[key]
        self._returned.pop(key, None)
        if not is_acknowledged:
            self._returned[key] = None
            if len(self._returned) > self._max_returned:
                del self._returned[next(iter(self._returned))]

    def values(self) -> ValuesView[Delivery]:
        """Return the deliveries."""
        return self._deliveries.values()

    def __len__(self) -> int:
        return len(self._deliveries)
