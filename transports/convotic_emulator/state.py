"""One subscription as a state machine: what is available, what is leased, what comes again.

Pure: no I/O of its own, no threads, no clock; time is passed in, and rows are read and written
through a :class:`Journal`. A message is in exactly one place:

- in the journal only, beyond ``cursor`` (most of a backlog: memory does not grow with it);
- ``ready``: read from the journal, or just published, not delivered yet;
- ``outstanding``: leased; ``again``: to be redelivered; ``delayed``: the same, after a back-off;
- in a lane of its ordering key (:mod:`convotic_emulator.ordering`).

Acknowledged and dead-lettered messages are nowhere: their rows are gone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from convotic_emulator.clock import SECOND_US
from convotic_emulator.errors import InvalidArgument
from convotic_emulator.lease import Consumer, LeaseBatch, Message, Timers
from convotic_emulator.ordering import Lane

__all__ = ["Journal", "Rules", "SubscriptionState"]

#: Rows read ahead of a consumer, and the most that ``ready`` holds.
PAGE_MESSAGES = 1000
PAGE_BYTES = 4 * 1024 * 1024
#: While this many wait to be redelivered nothing new is started, so that memory stays bounded.
MAX_AGAIN = 10_000
#: Messages of one ordering key that one response may carry.
LANE_PAGE = 100
#: Ours have about 40 characters.
MAX_ACK_ID_LENGTH = 100


class Journal(Protocol):
    """Where rows are. Writes become durable at the next commit, which the caller sees to."""

    def read_page(
        self, number: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return the next rows in order, and whether there may be more after them."""
        ...

    def read_key(
        self, number: int, key: str, after_seq: int, to_seq: int, limit: int
    ) -> list[Message]:
        """Return rows of one ordering key, in order."""
        ...

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        ...

    def find(self, number: int, seq: int) -> Message | None:
        """Return one row without its data."""
        ...

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take out rows for good; ``retain`` keeps them for a later seek."""
        ...

    def record_leases(self, number: int, deadline_us: int, messages: Sequence[Message]) -> None:
        """Write down who is leased until when."""
        ...

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        ...


@dataclass(slots=True)
class Rules:
    """The settings of a subscription that the state machine obeys; they may change at any time."""

    ordered: bool = False
    exactly_once: bool = False
    retain_acknowledged: bool = False
    #: 0: no dead-letter policy, then nothing is counted for clients.
    max_delivery_attempts: int = 0
    #: 0: no retry policy, redelivery at once.
    min_backoff_us: int = 0
    max_backoff_us: int = 0
    retention_us: int = 7 * 86_400 * SECOND_US


class SubscriptionState:
    """The messages of one subscription. Not thread-safe; one event loop owns it.

    ``forward`` publishes a message to the dead-letter topic and says whether it could.
    ``wake`` is called whenever something may have become deliverable.
    """

    def __init__(
        self,
        number: int,
        rules: Rules,
        *,
        token: str,
        journal: Journal,
        timers: Timers,
        forward: Callable[[SubscriptionState, Message], bool],
        wake: Callable[[SubscriptionState], None],
    ) -> None:
        self.number = number
        self.rules = rules
        self.ack_prefix = f"{token}-{number}-"
        self.outstanding: dict[int, Message] = {}
        self.ready: deque[Message] = deque()
        self.again: OrderedDict[int, Message] = OrderedDict()
        self.delayed: dict[int, Message] = {}
        self.lanes: dict[str, Lane] = {}
        #: Lanes with something to deliver and no open run.
        self.runnable: OrderedDict[str, Lane] = OrderedDict()
        #: All rows up to here are in memory or were passed over; those beyond are not.
        self.cursor = 0
        self.caught_up = False
        self._ready_bytes = 0
        self._again_turn = True
        self._journal = journal
        self._timers = timers
        self._forward = forward
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
        self._wake(self)

    def is_deliverable(self) -> bool:
        """Say whether a consumer with room would probably get something. May read a page."""
        return bool(self.again or self.runnable or self.ready or self._read_page())

    def waiting_in_memory(self) -> int:
        """Return how many messages could be delivered without reading the journal again."""
        return len(self.again) + len(self.runnable) + len(self.ready)

    def forget_ready(self) -> None:
        """Drop what was read ahead; it is read again when somebody asks. For idle subscriptions."""
        if self.ready:
            self.cursor = self.ready[0].seq - 1
        self.ready.clear()
        self._ready_bytes = 0
        self.caught_up = False

    def reload(self, remaining: Iterable[int]) -> None:
        """Start over from the journal, after a seek; ``remaining`` leases stay as they are."""
        keep = set(remaining)
        for seq in [seq for seq in self.outstanding if seq not in keep]:
            self._end_lease(self.outstanding.pop(seq))
        self.again.clear()
        self.delayed.clear()
        self.lanes.clear()
        self.runnable.clear()
        self.ready.clear()
        self._ready_bytes = 0
        self.cursor = 0
        self.caught_up = False
        for message in self.outstanding.values():
            self._join_lane(message, None)
        self._wake(self)

    def restore(self, leases: Mapping[int, list[Message]]) -> None:
        """Take back the leases of an earlier run, ``{deadline_us: messages}``; past ones lapse."""
        restored = sorted((m for batch in leases.values() for m in batch), key=lambda m: m.seq)
        for message in restored:
            self.outstanding[message.seq] = message
            self._join_lane(message, None)
        for deadline_us, messages in leases.items():
            LeaseBatch(self, self._timers, deadline_us, messages)

    def ack_id(self, message: Message) -> str:
        """Return the name of this delivery, ``TOKEN-SUBSCRIPTION-SEQ-GENERATION``."""
        return f"{self.ack_prefix}{message.seq}-{message.generation}"

    # What consumers do

    def take(
        self,
        consumer: Consumer,
        *,
        max_messages: int,
        max_bytes: int,
        lease_us: int,
        now_us: int,
    ) -> list[Message]:
        """Lease messages to a consumer, with their data, in the order of publishing where possible.

        ``max_bytes`` bounds the response; one larger message goes alone. The caller sends the
        bodies and then drops them.
        """
        taken: list[Message] = []
        room = max_bytes
        taker = object()
        while len(taken) < max_messages and consumer.has_room():
            message = self._next(now_us, taker, room if taken else None)
            if message is None:
                break
            room -= message.size
            taken.append(message)
            message.consumer = consumer
            consumer.held_messages += 1
            consumer.held_bytes += message.size
            self.outstanding[message.seq] = message
            self._join_lane(message, taker)
        if any(message.body is None for message in taken):
            taken = self._load_bodies(taken)
        if taken:
            self._lease(taken, now_us + lease_us)
        return taken

    def acknowledge(self, ack_ids: Iterable[str], now_us: int) -> list[str]:
        """Remove messages; return the ack ids that an exactly-once subscription refuses.

        Otherwise an old ack id has no effect, except that of a lease which has ended and was not
        given out again: that is accepted.
        """
        removed: list[int] = []
        late: list[tuple[str, int, int]] = []
        for ack_id, seq, generation in [(a, *self._parse(a)) for a in ack_ids]:
            message = self.outstanding.get(seq)
            if message is None or message.generation != generation:
                late.append((ack_id, seq, generation))
            elif self._has_lapsed(message, now_us):
                late.append((ack_id, seq, -1))
            else:
                del self.outstanding[seq]
                self._end_lease(message)
                removed += self._leave_lane(message.key, seq)
        self._remove(removed)
        refused: list[str] = []
        for ack_id, seq, generation in late:
            if self.rules.exactly_once:
                refused.append(ack_id)
            elif (waiting := self._unqueue(seq, generation)) is not None:
                self._remove(self._leave_lane(waiting.key, seq))
        self._wake(self)
        return refused

    def modify(self, changes: Iterable[tuple[str, int]], now_us: int) -> list[str]:
        """Set deadlines ``(ack id, seconds from now)``; 0 is a nack. Return refused ack ids.

        The deadline of a lapsed message that was not given out again makes it leased again.
        """
        refused: list[str] = []
        plan: dict[int, tuple[Message, int]] = {}
        for ack_id, seconds, seq, generation in [(a, s, *self._parse(a)) for a, s in changes]:
            message = self.outstanding.get(seq)
            if message is not None and message.generation == generation:
                if self._has_lapsed(message, now_us):
                    refused.append(ack_id)
                else:
                    plan[seq] = (message, seconds)
            elif self.rules.exactly_once:
                refused.append(ack_id)
            elif seconds and (revived := self._revive(seq, generation)) is not None:
                plan[seq] = (revived, seconds)
        extended: dict[int, list[Message]] = {}
        nacked: list[Message] = []
        for message, seconds in plan.values():
            if seconds:
                extended.setdefault(seconds, []).append(message)
            else:
                nacked.append(message)
        for seconds, messages in extended.items():
            self._lease(messages, now_us + seconds * SECOND_US)
        if nacked:
            self.expire(nacked, now_us)
        return refused

    def expire(self, messages: list[Message], now_us: int) -> None:
        """End leases that were not acknowledged: redeliver, or forward to the dead-letter topic."""
        kept: list[Message] = []
        gone: list[int] = []
        for message in messages:
            del self.outstanding[message.seq]
            self._end_lease(message)
            message.attempts += 1
            message.generation += 1
            limit = self.rules.max_delivery_attempts
            if limit and message.attempts >= limit and self._forward(self, message):
                gone += self._leave_lane(message.key, message.seq, drop=True)
                continue
            message.due_us = now_us + self._backoff_us(message) if self.rules.max_backoff_us else 0
            kept.append(message)
        self._journal.record_redelivery(self.number, kept)
        if gone:
            self._journal.remove(self.number, gone, retain=False)
        for message in kept:
            self._queue_again(message, now_us)
        self._wake(self)

    # Where the next message comes from

    def _next(self, now_us: int, taker: object, room: int | None) -> Message | None:
        """Pop the next deliverable message, unless it has more than ``room`` bytes."""
        oldest_us = now_us - self.rules.retention_us
        while True:
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
                self._journal.remove(self.number, [message.seq], retain=False)
            elif message is not fresh or not self._passes_over(message, now_us, taker):
                return message

    def _passes_over(self, message: Message, now_us: int, taker: object) -> bool:
        """Leave a fresh message for later: its key is busy, or its back-off is not over."""
        if message.due_us > now_us and not (self.rules.ordered and message.key):
            self._queue_again(message, now_us)
            return True
        lane = self.lanes.get(message.key) if self.rules.ordered and message.key else None
        if lane is None or (lane.is_open_to(taker) and not lane.has_more):
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
                    self._journal.read_key(self.number, key, after_seq, lane.passed_to, LANE_PAGE)
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
            page, more = self._journal.read_page(
                self.number, self.cursor, PAGE_MESSAGES, PAGE_BYTES
            )
            if page:
                self.cursor = page[-1].seq
            self.caught_up = not more
            self.ready.extend(m for m in page if not self._is_known(m))
            self._ready_bytes = sum(m.size for m in self.ready)
        return bool(self.ready)

    def _is_known(self, row: Message) -> bool:
        """Say whether a row is in memory elsewhere; only so after a restart or a seek."""
        seq = row.seq
        if seq in self.outstanding or seq in self.again or seq in self.delayed:
            return True
        lane = self.lanes.get(row.key) if row.key else None
        return lane is not None and (seq in lane.run or any(m.seq == seq for m in lane.next_up))

    def _load_bodies(self, taken: list[Message]) -> list[Message]:
        """Read missing data; drop messages that are gone."""
        missing = [m.seq for m in taken if m.body is None]
        bodies = self._journal.read_bodies(self.number, missing)
        for message in taken:
            if message.body is None:
                message.body = bodies.get(message.seq)
            if message.body is None:
                del self.outstanding[message.seq]
                self._end_lease(message)
                self._remove(self._leave_lane(message.key, message.seq, drop=True))
        return [m for m in taken if m.body is not None]

    # Leases and what comes after them

    def _lease(self, messages: list[Message], deadline_us: int) -> None:
        for message in messages:
            if message.batch is not None:
                message.batch.release(message)
        LeaseBatch(self, self._timers, deadline_us, messages)
        self._journal.record_leases(self.number, deadline_us, messages)

    def _end_lease(self, message: Message) -> None:
        if message.batch is not None:
            message.batch.release(message)
        consumer = message.consumer
        if consumer is not None:
            consumer.held_messages -= 1
            consumer.held_bytes -= message.size
            message.consumer = None
        message.body = None

    def _has_lapsed(self, message: Message, now_us: int) -> bool:
        """Only exactly-once subscriptions mind that a lease is over before its timer has fired."""
        batch = message.batch
        return self.rules.exactly_once and batch is not None and batch.deadline_us <= now_us

    def _backoff_us(self, message: Message) -> int:
        doublings = min(message.attempts - 1, 20)
        return min(self.rules.min_backoff_us << doublings, self.rules.max_backoff_us)

    def _queue_again(self, message: Message, now_us: int) -> None:
        if self.rules.ordered and message.key:
            lane = self.lanes[message.key]
            lane.fail(message.seq)
            self._close_lane(message.key, lane)
        elif message.due_us > now_us:
            self.delayed[message.seq] = message
            self._timers.push(message.due_us, _Delay(self, message))
        else:
            self.again[message.seq] = message

    def _remove(self, seqs: list[int]) -> None:
        if seqs:
            self._journal.remove(self.number, seqs, retain=self.rules.retain_acknowledged)

    def _unqueue(self, seq: int, generation: int) -> Message | None:
        """Take a lapsed message back that was not given out again, by the ack id of its lease."""
        row = self._journal.find(self.number, seq)
        if row is None or row.generation != generation + 1 or seq in self.outstanding:
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

    def _revive(self, seq: int, generation: int) -> Message | None:
        """Make a lapsed message outstanding again, under its old ack id."""
        if self.rules.ordered:
            return None  # the run that it failed in may have been given up because of it
        message = self._unqueue(seq, generation)
        if message is not None:
            message.generation = generation
            self.outstanding[seq] = message
            self._journal.record_redelivery(self.number, [message])
        return message

    # Lanes of ordering keys

    def _join_lane(self, message: Message, taker: object) -> None:
        if self.rules.ordered and message.key:
            lane = self.lanes.get(message.key)
            if lane is None:
                lane = self.lanes[message.key] = Lane()
            lane.deliver(message, taker)

    def _leave_lane(self, key: str | None, seq: int, *, drop: bool = False) -> list[int]:
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

    def _close_lane(self, key: str, lane: Lane) -> None:
        repeated = lane.close()
        for message in repeated:
            message.generation += 1
        if repeated:
            self._journal.record_redelivery(self.number, repeated)
        if lane.run:
            return
        if lane.has_more:
            self.runnable[key] = lane
        else:
            self.lanes.pop(key, None)
            self.runnable.pop(key, None)

    def lane_due(self, key: str) -> None:
        """Let a lane go on whose first message has waited for its back-off."""
        lane = self.lanes.get(key)
        if lane is not None and not lane.run:
            self.runnable[key] = lane
            self._wake(self)

    def delay_over(self, message: Message) -> None:
        """Let a message be redelivered that has waited for its back-off."""
        if self.delayed.get(message.seq) is message:
            del self.delayed[message.seq]
            self.again[message.seq] = message
            self._wake(self)

    def _parse(self, ack_id: str) -> tuple[int, int]:
        if ack_id.startswith(self.ack_prefix) and len(ack_id) <= MAX_ACK_ID_LENGTH:
            seq, _, generation = ack_id[len(self.ack_prefix) :].partition("-")
            if seq.isdecimal() and generation.isdecimal():
                return int(seq), int(generation)
        raise InvalidArgument(
            "You have passed an invalid ack ID to the service, or one of another subscription"
            f" (ack_id={ack_id[:MAX_ACK_ID_LENGTH]})."
        )


class _Delay:
    """The end of a message's back-off."""

    __slots__ = ("_message", "_state")

    def __init__(self, state: SubscriptionState, message: Message) -> None:
        self._state = state
        self._message = message

    @property
    def live(self) -> int:
        return int(self._state.delayed.get(self._message.seq) is self._message)

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        self._state.delay_over(self._message)


class _LaneDelay:
    """The end of the back-off of the first message of a lane."""

    __slots__ = ("_key", "_state")

    def __init__(self, state: SubscriptionState, key: str) -> None:
        self._state = state
        self._key = key

    @property
    def live(self) -> int:
        return int(self._key in self._state.lanes)

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        self._state.lane_due(self._key)
