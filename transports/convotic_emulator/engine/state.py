"""One subscription as a state machine: available, leased and redelivered messages.

Pure: no I/O of its own, no threads, no clock; time is passed in, and rows are read and written
through the store. A message is in exactly one place:

- in its row only, beyond ``cursor`` (most of a backlog: memory does not grow with it);
- ``ready``: read from its row, or just published, not delivered yet;
- ``outstanding``: leased; ``again``: to be redelivered; ``delayed``: the same, after a back-off;
- in the queue of its ordering key (:mod:`convotic_emulator.engine.ordering`).

Acknowledged and dead-lettered messages are nowhere: their rows are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_emulator.engine.backlog import Backlog
from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.engine.lease import Consumer, LeaseBatch, Take, Timers
from convotic_emulator.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from convotic_emulator.engine.rules import Rules
    from convotic_emulator.storage.message import Holder, Message
    from convotic_emulator.storage.store import Store

__all__ = ["SubscriptionState", "hear"]

#: Ours have about 40 characters.
MAX_ACK_ID_LENGTH = 100
#: Neither this nor the next number is the generation of a message.
_VOID = -2


class SubscriptionState:
    """The messages of one subscription. Not thread-safe; one event loop owns it.

    ``seeks`` counts the subscription's seeks: it is part of ack ids, so that those of before a seek
    have no effect. ``forward`` publishes a message to the dead-letter topic and says whether it
    could.
    ``wake`` is called whenever something may have become deliverable.
    """

    def __init__(
        self,
        number: int,
        rules: Rules,
        *,
        token: str,
        seeks: int,
        store: Store,
        timers: Timers,
        forward: Callable[[SubscriptionState, Message], bool],
        wake: Callable[[SubscriptionState], None],
    ) -> None:
        self.number = number
        self._any_prefix = f"{token}-{number}-"
        self._ack_prefix = f"{self._any_prefix}{seeks}-"
        self.outstanding: dict[int, Message] = {}
        self.backlog = Backlog(
            number,
            rules,
            self.outstanding,
            store=store,
            timers=timers,
            wake=self._wake_up,
        )
        self._store = store
        self._rows = store.backlogs
        self._timers = timers
        self._forward = forward
        self._wake = wake

    @property
    def rules(self) -> Rules:
        """The settings that are obeyed; may be replaced at any time."""
        return self.backlog.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self.backlog.rules = rules

    def add(self, messages: list[Message]) -> None:
        """Take in what was just published (its rows are written)."""
        self.backlog.add(messages)
        self._wake(self)

    def add_unread(self) -> None:
        """Note that something was just published which is read when its turn comes."""
        self.backlog.caught_up = False
        self._wake(self)

    def hold(self) -> None:
        """Deliver nothing until :meth:`reload`: the rows are about to change."""
        self.backlog.is_held = True

    def begin_seek(self, seeks: int) -> None:
        """Void all ack ids and leases, and deliver nothing until :meth:`reload`."""
        self._ack_prefix = f"{self._any_prefix}{seeks}-"
        self.hold()
        self._end_leases()
        self._store.leases.forget(self.number)

    def reload(self) -> None:
        """Start over from the rows, without any lease. Ends a :meth:`hold`."""
        self._end_leases()
        self.backlog.clear()
        self.backlog.is_held = False
        self._wake(self)

    def restore(self, leases: Mapping[int, list[Message]]) -> None:
        """Take back the leases of an earlier run, ``{deadline_us: messages}``; past ones lapse."""
        for messages in leases.values():
            self.outstanding.update((message.seq, message) for message in messages)
        self.backlog.rejoin_queues()
        for deadline_us, messages in leases.items():
            LeaseBatch(self, self._timers, deadline_us, messages)

    def ack_id(self, message: Message) -> str:
        """Return the name of this delivery, ``TOKEN-SUBSCRIPTION-SEEKS-SEQ-GENERATION``."""
        return f"{self._ack_prefix}{message.seq}-{message.generation}"

    def take(
        self,
        consumer: Consumer,
        *,
        max_messages: int,
        max_bytes: int,
        lease_us: int,
        now_us: int,
        units: int | None = None,
    ) -> list[Message]:
        """Lease messages to a consumer, with their data, in the order of publishing where possible.

        ``max_bytes`` bounds the response; one larger message goes alone. ``units`` is the
        consumer's share (:class:`Take`), by default all. The caller sends the bodies and then
        drops them.
        """
        taken: list[Message] = []
        room = max_bytes
        take = Take(consumer, max_messages if units is None else units, now_us)
        while len(taken) < max_messages and consumer.has_room():
            message = self.backlog.pop_next(take, room if taken else None)
            if message is None:
                break
            room -= message.size
            taken.append(message)
            message.holder = consumer
            consumer.held_messages += 1
            consumer.held_bytes += message.size
            self.outstanding[message.seq] = message
            self.backlog.enter(message, take)
        if any(message.body is None for message in taken):
            taken = self._load_bodies(taken)
        if taken:
            self._lease(taken, now_us + lease_us, consumer.sounds)
        return taken

    def acknowledge(self, ack_ids: Iterable[str], now_us: int) -> list[str]:
        """Remove messages; return the ack ids that an exactly-once subscription refuses.

        Otherwise an old ack id has no effect, except that of a lease which has ended and was not
        given out again: that is accepted.
        """
        removed: list[int] = []
        late: list[tuple[str, int, int]] = []
        heard: Holder | None = None
        for ack_id, seq, generation in [(a, *self._parse(a)) for a in ack_ids]:
            message = self.outstanding.get(seq)
            if message is None or message.generation != generation:
                late.append((ack_id, seq, generation))
            elif self._has_lapsed(message, now_us):
                late.append((ack_id, seq, _VOID))
            else:
                if message.holder is not heard:
                    hear(heard := message.holder)
                del self.outstanding[seq]
                self._end_lease(message)
                removed += self.backlog.leave(message.key, seq)
        self._remove(removed)
        refused: list[str] = []
        for ack_id, seq, generation in late:
            if self.rules.exactly_once:
                refused.append(ack_id)
            elif (waiting := self.backlog.unqueue(seq, generation)) is not None:
                self._remove(self.backlog.leave(waiting.key, seq))
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
            hear(message.holder)
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
        forwarded = 0
        for message in messages:
            del self.outstanding[message.seq]
            self._end_lease(message)
            message.attempts += 1
            message.generation += 1
            limit = self.rules.max_delivery_attempts
            if limit and message.attempts >= limit and self._forward(self, message):
                gone += self.backlog.leave(message.key, message.seq, drop=True)
                forwarded += 1
                continue
            message.due_us = now_us + self._backoff_us(message) if self.rules.max_backoff_us else 0
            kept.append(message)
        self._rows.record_redelivery(self.number, kept)
        if forwarded:
            self._store.counts.add_dead_letters(self.number, forwarded)
            self._rows.remove(self.number, gone, retain=False)
        for message in kept:
            self.backlog.queue_again(message, now_us)
        self._wake(self)

    def _lease(self, messages: list[Message], deadline_us: int, sounds: int | None = None) -> None:
        for message in messages:
            if message.lease is not None:
                message.lease.release(message)
        LeaseBatch(self, self._timers, deadline_us, messages, sounds=sounds)
        self._store.leases.record(self.number, deadline_us, messages)

    def _end_lease(self, message: Message) -> None:
        if message.lease is not None:
            message.lease.release(message)
        holder = message.holder
        if holder is not None:
            holder.held_messages -= 1
            holder.held_bytes -= message.size
            message.holder = None
        message.body = None

    def _end_leases(self) -> None:
        for message in self.outstanding.values():
            self._end_lease(message)
        self.outstanding.clear()

    def _load_bodies(self, taken: list[Message]) -> list[Message]:
        """Read missing data; drop messages that are gone."""
        missing = [m.seq for m in taken if m.body is None]
        bodies = self._rows.read_bodies(self.number, missing)
        for message in taken:
            if message.body is None:
                message.body = bodies.get(message.seq)
            if message.body is None:
                del self.outstanding[message.seq]
                self._end_lease(message)
                self._remove(self.backlog.leave(message.key, message.seq, drop=True))
        return [m for m in taken if m.body is not None]

    def _has_lapsed(self, message: Message, now_us: int) -> bool:
        """Only exactly-once subscriptions mind that a lease is over before its timer has fired."""
        lease = message.lease
        return self.rules.exactly_once and lease is not None and lease.deadline_us <= now_us

    def _backoff_us(self, message: Message) -> int:
        doublings = min(message.attempts - 1, 20)
        return min(self.rules.min_backoff_us << doublings, self.rules.max_backoff_us)

    def _remove(self, seqs: list[int]) -> None:
        if seqs:
            self._rows.remove(self.number, seqs, retain=self.rules.retain_acknowledged)

    def _revive(self, seq: int, generation: int) -> Message | None:
        """Make a lapsed message outstanding again, under its old ack id."""
        if self.rules.ordered:
            return None  # its run may have been closed because it failed
        message = self.backlog.unqueue(seq, generation)
        if message is not None:
            message.generation = generation
            self.outstanding[seq] = message
            self._rows.record_redelivery(self.number, [message])
        return message

    def _parse(self, ack_id: str) -> tuple[int, int]:
        """Return seq and generation; no message has the generation of an id of before a seek."""
        if len(ack_id) <= MAX_ACK_ID_LENGTH and ack_id.startswith(self._any_prefix):
            if ack_id.startswith(self._ack_prefix):
                seq, _, generation = ack_id[len(self._ack_prefix) :].partition("-")
                if seq.isdecimal() and generation.isdecimal():
                    return int(seq), int(generation)
            numbers = ack_id[len(self._any_prefix) :].split("-")
            if len(numbers) == 3 and all(map(str.isdecimal, numbers)):  # noqa: PLR2004  # see ack_id
                return int(numbers[1]), _VOID
        raise InvalidArgument(
            "You have passed an invalid ack ID to the service, or one of another subscription"
            f" (ack_id={ack_id[:MAX_ACK_ID_LENGTH]})."
        )

    def _wake_up(self) -> None:
        self._wake(self)


def hear(holder: Holder | None) -> None:
    """Record a sign of life."""
    if holder is not None:
        holder.sounds += 1
        holder.is_silent = False
