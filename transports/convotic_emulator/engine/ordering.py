"""Ordering keys: one queue a key, in which one run of delivered messages is open at a time.

A run is what one consumer holds of the key. As long as none of it has failed, the same consumer
gets what follows without waiting for acknowledgements; every other one waits until the run is
closed, that is when each of its messages is acknowledged or has failed. Then the first that failed
**and all after it, acknowledged ones included,** are redelivered, in order, before anything newer
of the key (https://cloud.google.com/pubsub/docs/ordering). So an acknowledgement behind an
unsettled message is kept back until that one is settled.

Memory holds open runs, and some of what waits behind them. The rest stays in its rows: a queue
remembers the range that was passed over, and reads it when its turn comes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_emulator.engine.lease import Take, Timers
    from convotic_emulator.storage.backlogs import Backlogs
    from convotic_emulator.storage.message import Holder, Message

__all__ = ["OrderingQueue", "OrderingQueues"]

#: Messages of one key that are read at a time.
KEY_PAGE = 100
#: Of all keys, kept in memory with their data for the consumers that have them next.
MAX_KEPT_BYTES = 4 * 1024 * 1024


class OrderingQueue:
    """The open run of one key, and what of the key waits behind it."""

    __slots__ = ("acknowledged", "failed", "holder", "next_up", "passed_from", "passed_to", "run")

    def __init__(self) -> None:
        #: Delivered and not closed, in order.
        self.run: dict[int, Message] = {}
        self.acknowledged: set[int] = set()
        self.failed: set[int] = set()
        #: To be delivered next, ahead of the passed-over range.
        self.next_up: deque[Message] = deque()
        #: What is to be delivered before anything else of the key; empty when from > to.
        self.passed_from = 1
        self.passed_to = 0
        #: The consumer that holds the run; None after a restart.
        self.holder: Holder | None = None

    @property
    def has_more(self) -> bool:
        """Whether something of the key waits behind the run."""
        return bool(self.next_up) or self.passed_from <= self.passed_to

    def may_give(self, take: Take) -> bool:
        """Return whether a consumer may get the next message of the key."""
        if not self.run:
            return take.units > 0
        return self.holder is take.consumer and not self.failed

    def pass_over(self, first_seq: int, last_seq: int) -> None:
        """Leave a range of the key for later."""
        if self.passed_from > self.passed_to:
            self.passed_from, self.passed_to = first_seq, last_seq
        else:
            self.passed_from = min(self.passed_from, first_seq)
            self.passed_to = max(self.passed_to, last_seq)

    def read_ahead(self, messages: list[Message]) -> None:
        """Take in the head of the passed-over range; nothing read means that it is used up."""
        self.next_up.extend(m for m in messages if m.seq not in self.run)
        self.passed_from = messages[-1].seq + 1 if messages else self.passed_to + 1

    def acknowledge(self, seq: int) -> list[int]:
        """Record an acknowledgement; return those that are final by it, and have left the run."""
        self.failed.discard(seq)
        self.acknowledged.add(seq)
        return self._leave()

    def drop(self, seq: int) -> list[int]:
        """Take out a message that is gone for another reason; return what is final by that."""
        self.run.pop(seq, None)
        self.acknowledged.discard(seq)
        self.failed.discard(seq)
        return self._leave()

    def close(self) -> list[Message]:
        """End the run if all of it is settled; return its acknowledged messages, to repeat them."""
        if not self.run or len(self.acknowledged) + len(self.failed) < len(self.run):
            return []
        repeated = [self.run[seq] for seq in self.run if seq in self.acknowledged]
        last_seq = max([*self.run, *(m.seq for m in self.next_up)])
        self.next_up.clear()
        self.pass_over(min(self.run), last_seq)
        self.run.clear()
        self.acknowledged.clear()
        self.failed.clear()
        return repeated

    def _leave(self) -> list[int]:
        final: list[int] = []
        for seq in self.run:
            if seq not in self.acknowledged:
                break
            final.append(seq)
        for seq in final:
            del self.run[seq]
            self.acknowledged.discard(seq)
        return final


class OrderingQueues:
    """The queues of one subscription. ``wake`` is called when a back-off is over."""

    def __init__(
        self, number: int, rows: Backlogs, timers: Timers, wake: Callable[[], None]
    ) -> None:
        self.queues: dict[str, OrderingQueue] = {}
        #: Those with something to deliver: to any consumer, or to the one whose run is open.
        self.free: OrderedDict[str, OrderingQueue] = OrderedDict()
        self.held: dict[Holder, OrderedDict[str, OrderingQueue]] = {}
        self._number = number
        self._rows = rows
        self._timers = timers
        self._wake = wake
        self._kept_bytes = 0
        self._own_first = True

    def __bool__(self) -> bool:
        """Whether some consumer might get something."""
        return bool(self.free or self.held)

    def takes_over(self, message: Message, take: Take) -> bool:
        """Queue a new message behind others of its key if it must wait; return whether it must."""
        key = message.key
        assert key is not None
        queue = self.queues.get(key)
        is_late = message.due_us > take.now_us
        if queue is None:
            if take.units and not is_late:
                return False
            queue = self.queues[key] = OrderingQueue()
        elif not (is_late or queue.has_more) and queue.may_give(take):
            return False
        self._keep(queue, message)
        self._place(key, queue)
        return True

    def peek(self, take: Take) -> Message | None:
        """Return the next message of a key that a consumer has or may have."""
        own = self.held.get(take.consumer)
        self._own_first = not self._own_first
        for places in (own, self.free) if self._own_first else (self.free, own):
            while places and (places is own or take.units):
                key, queue = next(iter(places.items()))
                message = self._first(key, queue)
                if message is not None and message.due_us <= take.now_us:
                    return message
                del places[key]
                if message is not None:
                    self._timers.push(message.due_us, _Due(self, key))
                elif not queue.run:
                    del self.queues[key]
        if own is not None and not own:
            del self.held[take.consumer]
        return None

    def pop(self, message: Message) -> None:
        """Take out what :meth:`peek` has returned."""
        assert message.key is not None
        queue = self.queues[message.key]
        queue.next_up.popleft()
        if message.body is not None:
            self._kept_bytes -= message.size
        self._place(message.key, queue)

    def enter(self, message: Message, take: Take | None) -> None:
        """Add a message that has been delivered to the run of its key."""
        assert message.key is not None
        queue = self.queues.get(message.key)
        if queue is None:
            queue = self.queues[message.key] = OrderingQueue()
        if take is not None and not queue.run:
            take.units -= 1
        queue.holder = None if take is None else take.consumer
        queue.run[message.seq] = message
        self._place(message.key, queue)

    def leave(self, key: str, seq: int, *, drop: bool) -> list[int]:
        """Return what may be removed now that ``seq`` is acknowledged (or gone: ``drop``)."""
        queue = self.queues.get(key)
        if queue is None:
            return [seq]
        final = [seq, *queue.drop(seq)] if drop or seq not in queue.run else queue.acknowledge(seq)
        self._close(key, queue)
        return final

    def fail(self, message: Message) -> None:
        """Record a nack or a lapse."""
        assert message.key is not None
        queue = self.queues[message.key]
        queue.failed.add(message.seq)
        self._close(message.key, queue)

    def unqueue(self, message: Message) -> None:
        """Take out a message that is acknowledged late."""
        queue = self.queues.get(message.key) if message.key else None
        if queue is not None:
            queue.next_up = deque(m for m in queue.next_up if m.seq != message.seq)

    def rejoin(self, outstanding: Iterable[Message]) -> None:
        """Open the runs of what was leased before a restart, when nothing is read yet.

        All that is older in their queues counts as passed over: it comes in order with them.
        """
        for message in sorted(outstanding, key=lambda m: m.seq):
            if message.key:
                self.enter(message, None)
        for queue in self.queues.values():
            queue.pass_over(1, max(queue.run))

    def go_on(self, key: str) -> None:
        """Let a queue go on whose first message has waited for its back-off."""
        queue = self.queues.get(key)
        if queue is not None:
            self._place(key, queue)
            self._wake()

    def is_known(self, row: Message) -> bool:
        """Return whether a row waits in a queue or is in a run."""
        queue = self.queues.get(row.key) if row.key else None
        return queue is not None and (
            queue.passed_from <= row.seq <= queue.passed_to
            or row.seq in queue.run
            or any(m.seq == row.seq for m in queue.next_up)
        )

    def clear(self) -> None:
        """Forget everything."""
        self.queues.clear()
        self.free.clear()
        self.held.clear()
        self._kept_bytes = 0

    def _keep(self, queue: OrderingQueue, message: Message) -> None:
        """Have a message wait: in memory if there is room, and nothing of the key is behind it."""
        has_gap = queue.passed_from <= queue.passed_to
        fits = self._kept_bytes + message.size <= MAX_KEPT_BYTES
        if message.body is None or has_gap or not fits or len(queue.next_up) >= KEY_PAGE:
            queue.pass_over(message.seq, message.seq)
        else:
            queue.next_up.append(message)
            self._kept_bytes += message.size

    def _first(self, key: str, queue: OrderingQueue) -> Message | None:
        """Return what a queue delivers next; read it if it is not in memory."""
        while not queue.next_up and queue.has_more:
            after_seq, to_seq = queue.passed_from - 1, queue.passed_to
            queue.read_ahead(self._rows.read_key(self._number, key, after_seq, to_seq, KEY_PAGE))
        return queue.next_up[0] if queue.next_up else None

    def _close(self, key: str, queue: OrderingQueue) -> None:
        kept_bytes = sum(m.size for m in queue.next_up if m.body is not None)
        repeated = queue.close()
        if not queue.next_up:
            self._kept_bytes -= kept_bytes
        for message in repeated:
            message.generation += 1
        self._rows.record_redelivery(self._number, repeated)
        self._place(key, queue)

    def _place(self, key: str, queue: OrderingQueue) -> None:
        """File a queue, last, under the consumers that may get its next message."""
        self.free.pop(key, None)
        own = None if queue.holder is None else self.held.get(queue.holder)
        if own is not None and own.pop(key, None) is not None and not own:
            assert queue.holder is not None
            del self.held[queue.holder]
        if not queue.run:
            queue.holder = None
            if queue.has_more:
                self.free[key] = queue
            else:
                self.queues.pop(key, None)
        elif queue.has_more and not queue.failed and queue.holder is not None:
            self.held.setdefault(queue.holder, OrderedDict())[key] = queue


class _Due:
    """The end of the back-off of the first message of a queue."""

    __slots__ = ("_key", "_queues")

    def __init__(self, queues: OrderingQueues, key: str) -> None:
        self._queues = queues
        self._key = key

    @property
    def live(self) -> int:
        return int(self._key in self._queues.queues)

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        self._queues.go_on(self._key)
