"""Where a subscription's next message comes from: redelivery, ordering keys, new ones.

Memory holds a page of what is new, and all that waits to be redelivered; the rest of a backlog
stays in its rows. No I/O of its own, like :mod:`convotic_emulator.engine.state`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from convotic_emulator.engine.ordering import OrderingQueues

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_emulator.engine.lease import Take, Timers
    from convotic_emulator.engine.rules import Rules
    from convotic_emulator.storage.message import Message
    from convotic_emulator.storage.store import Store

__all__ = ["Backlog"]

#: Rows read ahead of a consumer, and the most that ``ready`` holds.
PAGE_MESSAGES = 1000
PAGE_BYTES = 4 * 1024 * 1024
#: While this many wait to be redelivered nothing new is started, so that memory stays bounded.
MAX_AGAIN = 10_000


class Backlog:
    """What of one subscription is not leased.

    ``outstanding`` is the owner's, read here only. ``wake`` is called when a back-off is over.
    """

    def __init__(
        self,
        number: int,
        rules: Rules,
        outstanding: Mapping[int, Message],
        *,
        store: Store,
        timers: Timers,
        wake: Callable[[], None],
    ) -> None:
        self.rules = rules
        self.ready: deque[Message] = deque()
        self.again: OrderedDict[int, Message] = OrderedDict()
        self.delayed: dict[int, Message] = {}
        self.keys = OrderingQueues(number, store.backlogs, timers, wake)
        #: All rows up to here are in memory or were passed over; those beyond are not.
        self.cursor = 0
        #: Whether nothing is beyond the cursor.
        self.caught_up = False
        #: While set nothing is delivered, and lapsed messages can't be acknowledged.
        self.is_held = False
        self._number = number
        self._outstanding = outstanding
        self._ready_bytes = 0
        self._again_turn = True
        self._rows = store.backlogs
        self._timers = timers
        self._wake = wake

    def add(self, messages: list[Message]) -> None:
        """Take in what was just published (its rows are written)."""
        for message in messages:
            if not self.caught_up:
                break
            if len(self.ready) >= PAGE_MESSAGES or self._ready_bytes >= PAGE_BYTES:
                self.caught_up = False
                break
            self.ready.append(message)
            self._ready_bytes += message.size
            self.cursor = message.seq

    def is_deliverable(self) -> bool:
        """Return whether a consumer with room would probably get something. May read a page."""
        if self.is_held:
            return False
        return bool(self.again or self.keys or self.ready or self._read_page())

    def waiting_units(self) -> int:
        """Return how many new keys, and messages without one, are to be had without reading."""
        if not self.rules.ordered:
            return len(self.again) + len(self.ready)
        keys = {m.key for m in self.ready if m.key and m.key not in self.keys.queues}
        unkeyed = sum(not m.key for m in self.ready)
        return len(self.again) + len(self.keys.free) + len(keys) + unkeyed

    def forget_ready(self) -> None:
        """Drop what was read ahead; it is read again when needed. For idle subscriptions."""
        if self.ready:
            self.cursor = self.ready[0].seq - 1
        self.ready.clear()
        self._ready_bytes = 0
        self.caught_up = False

    def clear(self) -> None:
        """Forget everything; it is read again from the rows."""
        self.again.clear()
        self.delayed.clear()
        self.keys.clear()
        self.ready.clear()
        self._ready_bytes = 0
        self.cursor = 0
        self.caught_up = False

    def rejoin_queues(self) -> None:
        """Open the runs of what is leased after a restart, when nothing is read yet."""
        if self.rules.ordered:
            self.keys.rejoin(self._outstanding.values())

    def pop_next(self, take: Take, room: int | None) -> Message | None:
        """Pop the next message for a consumer, unless it has more than ``room`` bytes."""
        oldest_us = take.now_us - self.rules.retention_us
        while not self.is_held:
            fresh = self._peek_fresh(take)
            message = None
            has_again = self.again or self.keys
            if has_again and (fresh is None or self._again_turn or len(self.again) > MAX_AGAIN):
                message = self._peek_again(take)
            message = message or fresh
            if message is None or (room is not None and message.size > room):
                return None
            self._again_turn = not self._again_turn
            if message is fresh:
                self.ready.popleft()
                self._ready_bytes -= message.size
            elif self.again.pop(message.seq, None) is None:
                self.keys.pop(message)
            if message.published_us < oldest_us:
                if message is fresh:
                    self._pass_expired(oldest_us)
                else:
                    self._rows.remove(self._number, [message.seq], retain=False)
            elif message is not fresh or not self._waits(message, take):
                return message
        return None

    def enter(self, message: Message, take: Take) -> None:
        """Record that a message has been delivered."""
        if message.key and self.rules.ordered:
            self.keys.enter(message, take)
        else:
            take.units -= 1

    def leave(self, key: str | None, seq: int, *, drop: bool = False) -> list[int]:
        """Return what may be removed now that ``seq`` is acknowledged (or gone: ``drop``)."""
        if not (key and self.rules.ordered):
            return [seq]
        return self.keys.leave(key, seq, drop=drop or self.rules.exactly_once)

    def queue_again(self, message: Message, now_us: int) -> None:
        """Take back a message that is to be delivered again, now or when it is due."""
        if self.rules.ordered and message.key:
            self.keys.fail(message)
        elif message.due_us > now_us:
            self.delayed[message.seq] = message
            self._timers.push(message.due_us, _Delay(self, message))
        else:
            self.again[message.seq] = message

    def unqueue(self, seq: int, generation: int) -> Message | None:
        """Take a lapsed message back that was not given out again, by the ack id of its lease."""
        row = None if self.is_held else self._rows.find(self._number, seq)
        if row is None or row.generation != generation + 1 or seq in self._outstanding:
            return None
        self.again.pop(seq, None)
        self.delayed.pop(seq, None)
        if self.ready and self.ready[0].seq <= seq <= self.ready[-1].seq:
            self.ready = deque(m for m in self.ready if m.seq != seq)
            self._ready_bytes = sum(m.size for m in self.ready)
        self.keys.unqueue(row)
        return row

    def delay_over(self, message: Message) -> None:
        """Let a message be redelivered that has waited for its back-off."""
        if self.delayed.get(message.seq) is message:
            del self.delayed[message.seq]
            self.again[message.seq] = message
            self._wake()

    def _peek_fresh(self, take: Take) -> Message | None:
        """Return the next new message, if the consumer may get it or it belongs into a queue."""
        if not self.ready and not (take.units and self._read_page()):
            return None
        fresh = self.ready[0]
        return fresh if take.units or (fresh.key and self.rules.ordered) else None

    def _peek_again(self, take: Take) -> Message | None:
        """Return what is to be redelivered, or is next of its key."""
        if self.keys and (message := self.keys.peek(take)) is not None:
            return message
        return next(iter(self.again.values())) if self.again and take.units else None

    def _waits(self, message: Message, take: Take) -> bool:
        """Leave a new message for later: its key is busy, or its back-off is not over."""
        if message.key and self.rules.ordered:
            return self.keys.takes_over(message, take)
        if message.due_us <= take.now_us:
            return False
        self.queue_again(message, take.now_us)
        return True

    def _read_page(self) -> bool:
        """Fill ``ready``, if there is anything to fill it with."""
        while not self.caught_up and not self.ready:
            page, more = self._rows.read_page(self._number, self.cursor, PAGE_MESSAGES, PAGE_BYTES)
            if page:
                self.cursor = page[-1].seq
            self.caught_up = not more
            self.ready.extend(m for m in page if not self._is_known(m))
            self._ready_bytes = sum(m.size for m in self.ready)
        return bool(self.ready)

    def _pass_expired(self, oldest_us: int) -> None:
        """Go on behind what is past its retention; its rows are for maintenance to delete."""
        while self.ready and self.ready[0].published_us < oldest_us:
            self._ready_bytes -= self.ready.popleft().size
        if not self.ready:
            self.cursor = max(self.cursor, self._rows.last_before(self._number, oldest_us))

    def _is_known(self, row: Message) -> bool:
        """Return whether a row is in memory elsewhere; only so after a restart."""
        seq = row.seq
        if seq in self._outstanding or seq in self.again or seq in self.delayed:
            return True
        return self.keys.is_known(row)


class _Delay:
    """The end of a message's back-off."""

    __slots__ = ("_backlog", "_message")

    def __init__(self, backlog: Backlog, message: Message) -> None:
        self._backlog = backlog
        self._message = message

    @property
    def live(self) -> int:
        return int(self._backlog.delayed.get(self._message.seq) is self._message)

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        self._backlog.delay_over(self._message)
