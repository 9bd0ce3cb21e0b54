"""Leases of messages, the consumers that have them, and the one timer heap."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from convotic_emulator.storage.message import Message

__all__ = ["Consumer", "LeaseBatch", "Take", "Timed", "Timers"]

#: Rebuild the heap when this many entries, and more than half of all, are dead.
_MIN_DEAD_TIMERS = 1024


class Consumer:
    """A taker of messages: a stream, or one pull. Counts what it holds, for flow control.

    A limit of 0 or less is none (https://cloud.google.com/pubsub/docs/flow-control-messages).
    A message whose lease ends is no longer counted, even if the client still works on it.

    ``is_silent`` once a lease has lapsed and nothing was heard of the consumer since the delivery:
    its client is frozen, or gone without a word. Then others come first.
    """

    __slots__ = (
        "held_bytes",
        "held_messages",
        "is_silent",
        "max_bytes",
        "max_messages",
        "sounds",
    )

    def __init__(self, max_messages: int = 0, max_bytes: int = 0) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.held_messages = 0
        self.held_bytes = 0
        self.is_silent = False
        self.sounds = 0

    def has_room(self) -> bool:
        """Return whether one more message may be sent now."""
        if 0 < self.max_messages <= self.held_messages:
            return False
        return not 0 < self.max_bytes <= self.held_bytes


class Take:
    """One consumer's turn: ``units`` is how many new keys, and messages without one, it may get.

    Messages of a key that the consumer has already cost nothing: no other consumer could get them.
    """

    __slots__ = ("consumer", "now_us", "units")

    def __init__(self, consumer: Consumer, units: int, now_us: int) -> None:
        self.consumer = consumer
        self.units = units
        self.now_us = now_us


class Timed(Protocol):
    """Something that happens at a time; not ``live`` once it need not happen."""

    @property
    def live(self) -> int:
        """Zero when firing would have no effect."""
        ...

    def fire(self, now_us: int) -> None:
        """Do it. Called once, at or after the time."""
        ...


class LeaseBatch:
    """Messages leased together until one deadline: one timer for a whole response."""

    __slots__ = ("_owner", "_sounds", "_timers", "deadline_us", "live", "messages")

    def __init__(
        self,
        owner: LeaseOwner,
        timers: Timers,
        deadline_us: int,
        messages: list[Message],
        *,
        sounds: int | None = None,
    ) -> None:
        self._owner = owner
        self._timers = timers
        #: Of the consumer at the delivery; None if its client has set the deadline.
        self._sounds = sounds
        self.deadline_us = deadline_us
        self.messages = messages
        #: How many of the messages still have this lease.
        self.live = len(messages)
        for message in messages:
            message.lease = self
        timers.push(deadline_us, self)

    def release(self, message: Message) -> None:
        """End the lease of one message that has it."""
        message.lease = None
        self.live -= 1
        if not self.live:
            self.messages = []
            self._timers.record_dead()

    def fire(self, now_us: int) -> None:
        """Let what is still leased lapse."""
        self._timers.record_fired()
        lapsed = [message for message in self.messages if message.lease is self]
        for message in lapsed:
            if message.holder is not None and message.holder.sounds == self._sounds:
                message.holder.is_silent = True
        self._owner.expire(lapsed, now_us)


class LeaseOwner(Protocol):
    """The owner of leases, notified when they lapse."""

    def expire(self, messages: list[Message], now_us: int) -> None:
        """Take back messages whose lease has just ended."""
        ...


class Timers:
    """The one heap of what happens when. Dead entries are removed when they are the majority."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timed]] = []
        self._count = 0
        self._dead = 0

    def push(self, when_us: int, timed: Timed) -> None:
        """Have ``timed.fire`` called at ``when_us``."""
        self._count += 1  # a tie-breaker: Timed objects have no order
        heapq.heappush(self._heap, (when_us, self._count, timed))

    def record_dead(self) -> None:
        """Say that one entry has become dead."""
        self._dead += 1
        if self._dead > _MIN_DEAD_TIMERS and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].live]
            heapq.heapify(self._heap)
            self._dead = 0

    def record_fired(self) -> None:
        """Say that an entry that will call :meth:`record_dead` has left the heap already."""
        self._dead -= 1

    def next_us(self) -> int | None:
        """Return the time of the next live entry."""
        heap = self._heap
        while heap and not heap[0][2].live:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def fire_due(self, now_us: int) -> None:
        """Fire all that is due."""
        while (when_us := self.next_us()) is not None and when_us <= now_us:
            heapq.heappop(self._heap)[2].fire(now_us)
