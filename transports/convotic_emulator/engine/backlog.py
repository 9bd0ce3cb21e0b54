"""Where a subscription's next message comes from: redelivery, lanes of ordering keys, new ones.

Memory holds a page of what is new, and all that waits to be redelivered; the rest of a backlog
stays in its rows. No I/O of its own, like :mod:`convotic_emulator.engine.state`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from convotic_emulator.engine.ordering import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_emulator.engine.lease import Timers
    from convotic_emulator.engine.rules import Rules
    from convotic_emulator.storage.message import Message
    from convotic_emulator.storage.store import Store

__all__ = ["Backlog"]

#: Rows read ahead of a consumer, and the most that ``ready`` holds.
PAGE_MESSAGES = 1000
PAGE_BYTES = 4 * 1024 * 1024
#: While this many wait to be redelivered nothing new is started, so that memory stays bounded.
MAX_AGAIN = 10_000
#: Messages of one ordering key that are read at a time.
LANE_PAGE = 100


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
        self.lanes: dict[str, Lane] = {}
        #: Lanes with something to deliver and no open run.
        self.runnable: OrderedDict[str, Lane] = OrderedDict()
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
        """Say whether a consumer with room would probably get something. May read a page."""
        if self.is_held:
            return False
        return bool(self.again or self.runnable or self.ready or self._read_page())

    def waiting_in_memory(self) -> int:
        """Return how many messages could be delivered without reading rows again."""
        return len(self.again) + len(self.runnable) + len(self.ready)

    def forget_ready(self) -> None:
        """Drop what was read ahead; it is read again when somebody asks. For idle subscriptions."""
        if self.ready:
            self.cursor = self.ready[0].seq - 1
        self.ready.clear()
        self._ready_bytes = 0
        self.caught_up = False

    def clear(self) -> None:
        """Forget everything; it is read again from the rows."""
        self.again.clear()
        self.delayed.clear()
        self.lanes.clear()
        self.runnable.clear()
        self.ready.clear()
        self._ready_bytes = 0
        self.cursor = 0
        self.caught_up = False

    def renew_kept_back(self) -> None:
        """Void the ack ids of what was acknowledged behind an unsettled message of its key.

        After a seek it comes again, unless the seek took it or has given it a new ack id itself.
        """
        kept = [lane.run[seq] for lane in self.lanes.values() for seq in lane.acknowledged]
        renewed: list[Message] = []
        for message in kept:
            row = self._rows.find(self._number, message.seq)
            if row is not None and row.generation == message.generation:
                row.generation += 1
                renewed.append(row)
        self._rows.record_redelivery(self._number, renewed)

    def rejoin_lanes(self) -> None:
        """Open the runs of what is leased after a restart or a seek, when nothing is read yet.

        All that is older in their lanes counts as passed over: it comes in order with them.
        """
        for message in sorted(self._outstanding.values(), key=lambda m: m.seq):
            self.join_lane(message, None)
        for lane in self.lanes.values():
            lane.pass_over(1, max(lane.run))

    def pop_next(self, now_us: int, taker: object, room: int | None) -> Message | None:
        """Pop the next deliverable message, unless it has more than ``room`` bytes."""
        oldest_us = now_us - self.rules.retention_us
        while not self.is_held:
            fresh = self.ready[0] if self.ready or self._read_page() else None
            message = None
            if fresh is None or self._again_turn or len(self.again) > MAX_AGAIN:
                message = self._peek_again(now_us, taker)
            message = message or fresh
            if message is None or (room is not None and message.size > room):
                return None
            self._again_turn = not self._again_turn
            if message is fresh:
                self.ready.popleft()
                self._ready_bytes -= message.size
            else:
                self._pop_again(message)
            if message.published_us < oldest_us:
                if message is fresh:
                    self._pass_expired(oldest_us)
                else:
                    self._rows.remove(self._number, [message.seq], retain=False)
            elif message is not fresh or not self._passes_over(message, now_us, taker):
                return message
        return None

    def queue_again(self, message: Message, now_us: int) -> None:
        """Take back a message that is to be delivered again, now or when it is due."""
        if self.rules.ordered and message.key:
            lane = self.lanes[message.key]
            lane.fail(message.seq)
            self._close_lane(message.key, lane)
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
        lane = self.lanes.get(row.key) if row.key else None
        if lane is not None:
            lane.next_up = deque(m for m in lane.next_up if m.seq != seq)
        return row

    def join_lane(self, message: Message, taker: object) -> None:
        """Note that a message has been delivered."""
        if self.rules.ordered and message.key:
            lane = self.lanes.get(message.key)
            if lane is None:
                lane = self.lanes[message.key] = Lane()
            lane.deliver(message, taker)

    def leave_lane(self, key: str | None, seq: int, *, drop: bool = False) -> list[int]:
        """Return what may be removed now that ``seq`` is acknowledged (or gone: ``drop``)."""
        lane = self.lanes.get(key) if key and self.rules.ordered else None
        if lane is None or key is None:
            return [seq]
        if drop or self.rules.exactly_once or seq not in lane.run:
            final = [seq, *lane.drop(seq)]
        else:
            final = lane.acknowledge(seq)
        self._close_lane(key, lane)
        return final

    def lane_due(self, key: str) -> None:
        """Let a lane go on whose first message has waited for its back-off."""
        lane = self.lanes.get(key)
        if lane is not None and not lane.run:
            self.runnable[key] = lane
            self._wake()

    def delay_over(self, message: Message) -> None:
        """Let a message be redelivered that has waited for its back-off."""
        if self.delayed.get(message.seq) is message:
            del self.delayed[message.seq]
            self.again[message.seq] = message
            self._wake()

    def _passes_over(self, message: Message, now_us: int, taker: object) -> bool:
        """Leave a fresh message for later: its key is busy, or its back-off is not over."""
        is_late = message.due_us > now_us
        if not (self.rules.ordered and message.key):
            if is_late:
                self.queue_again(message, now_us)
            return is_late
        lane = self.lanes.get(message.key)
        if lane is None and is_late:
            lane = self.lanes[message.key] = self.runnable[message.key] = Lane()
        if lane is None or (lane.is_open_to(taker) and not lane.has_more and not is_late):
            return False
        lane.pass_over(message.seq, message.seq)
        return True

    def _peek_again(self, now_us: int, taker: object) -> Message | None:
        """Return what is to be redelivered, or comes next in a lane."""
        while self.runnable:
            key, lane = next(iter(self.runnable.items()))
            if not lane.next_up and lane.is_open_to(taker):
                after_seq = lane.passed_from - 1
                lane.read_ahead(
                    self._rows.read_key(self._number, key, after_seq, lane.passed_to, LANE_PAGE)
                )
            if lane.next_up and lane.is_open_to(taker):
                message = lane.next_up[0]
                if message.due_us <= now_us:
                    return message
                self._timers.push(message.due_us, _LaneDelay(self, key))
            elif lane.has_more and lane.is_open_to(taker):
                continue
            del self.runnable[key]
            if not lane.run and not lane.has_more:
                del self.lanes[key]
        return next(iter(self.again.values())) if self.again else None

    def _pop_again(self, message: Message) -> None:
        if self.again.pop(message.seq, None) is None and message.key is not None:
            lane = self.lanes[message.key]
            lane.next_up.popleft()
            if not lane.has_more:
                self.runnable.pop(message.key, None)

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
        """Say whether a row is in memory elsewhere; only so after a restart or a seek."""
        seq = row.seq
        if seq in self._outstanding or seq in self.again or seq in self.delayed:
            return True
        lane = self.lanes.get(row.key) if row.key else None
        return lane is not None and (
            lane.passed_from <= seq <= lane.passed_to
            or seq in lane.run
            or any(m.seq == seq for m in lane.next_up)
        )

    def _close_lane(self, key: str, lane: Lane) -> None:
        repeated = lane.close()
        for message in repeated:
            message.generation += 1
        if repeated:
            self._rows.record_redelivery(self._number, repeated)
        if lane.run:
            return
        if lane.has_more:
            self.runnable[key] = lane
        else:
            self.lanes.pop(key, None)
            self.runnable.pop(key, None)


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


class _LaneDelay:
    """The end of the back-off of the first message of a lane."""

    __slots__ = ("_backlog", "_key")

    def __init__(self, backlog: Backlog, key: str) -> None:
        self._backlog = backlog
        self._key = key

    @property
    def live(self) -> int:
        return int(self._key in self._backlog.lanes)

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        self._backlog.lane_due(self._key)
