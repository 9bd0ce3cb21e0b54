"""One consumed queue of this process: what is buffered, running and waiting here.

Carries out what ``flow.py`` decides. Owned by the I/O thread, but for the methods of
:class:`~convotic_pubsub.consume.delivery.Owner`, which consumers call from their threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_pubsub.consume.dead_letters import (
    publish_again,
    publish_dead_letter,
    report_missing_topic,
)
from convotic_pubsub.consume.delivery import Delivery, PullStream, State
from convotic_pubsub.consume.flow import Effect, Event, Facts, Signal, transition
from convotic_pubsub.consume.guarded_policy import GuardedPolicy
from convotic_pubsub.consume.leases import Leases
from convotic_pubsub.consume.ordering import OrderingQueues
from convotic_pubsub.consume.supply import Supply
from convotic_pubsub.figures import Latencies
from convotic_pubsub.queue import (
    DeadLetter,
    Defer,
    Deliver,
    Lapse,
    QueueSpec,
    Return,
    SendAgain,
    Settlement,
    read_message,
)

if TYPE_CHECKING:
    from convotic_pubsub.consume.ports import Dispatch, Ports

__all__ = ["Subscription"]

logger = logging.getLogger(__name__)

#: A message that is given back waits at most this long for the end of its stream.
_STREAM_END_SECONDS = 3.0
#: The share of a stream's limit at which the limit binds.
_NEARLY = 0.75
#: Those that each message asks for. An Enum's attribute takes ten times as long as a name on Python
#: 3.11, and there were twenty a message.
_BUFFERED, _DISPATCHED, _WAITING = State.BUFFERED, State.DISPATCHED, State.WAITING
_SETTLING, _SLOT_FREE, _CONFIRMED = State.SETTLING, Signal.SLOT_FREE, Signal.CONFIRMED

#: A new state, and what then is to be done.
_Step: TypeAlias = "tuple[State, tuple[Callable[[Delivery, Event], object], ...]]"


class Subscription:
    """A queue's messages: at most ``concurrency`` dispatched, some ready behind them."""

    def __init__(self, spec: QueueSpec, ports: Ports, dispatch: Dispatch) -> None:
        self.spec = spec
        self.is_stopping = False
        #: Celery's own traffic, which no consumer gets.
        self.is_control = False
        #: A buffered message had to be given back: nothing is pulled until a slot is free.
        self.is_paused = False
        #: Messages that wait for their retry.
        self.waiting = 0
        #: Since the start: deliveries, and how long confirmations took.
        self.received = 0
        self.confirmations = Latencies()
        #: Called when something that a puller may wait for has changed.
        self.on_change: Callable[[], object] = bool
        self._ports = ports
        self._dispatch = dispatch
        self._supply = Supply(spec.concurrency, spec.buffer_messages)
        self._leases = Leases(spec, ports)
        self._policy = GuardedPolicy(spec)
        self._ordering = OrderingQueues()
        self._is_ordered = spec.enable_message_ordering
        self._buffer: deque[Delivery] = deque()
        self._slots_taken = 0
        self._local = 0
        self._local_bytes = 0
        self._is_waiting_reported = False
        self._facts = Facts(has_dead_letter_topic=bool(spec.dead_letter_topic))
        self._background: set[asyncio.Task[None]] = set()
        #: What ``transition`` has said so far, by state and event (or its class), for these facts.
        self._steps: dict[tuple[State, object], _Step] = {}
        self._effects: dict[Effect, Callable[[Delivery, Event], object]] = {
            Effect.WATCH: self._leases.watch,
            Effect.WATCH_LEASE_END: self._leases.watch_lease_end,
            Effect.ENQUEUE: self._enqueue,
            Effect.TAKE_SLOT: self._take_slot,
            Effect.DISPATCH: self._hand_on,
            Effect.LEAVE: self._leave,
            Effect.ACKNOWLEDGE: self._acknowledge,
            Effect.START_WAIT: self._start_wait,
            Effect.NACK: self._nack,
            Effect.PUBLISH: self._publish,
            Effect.COUNT_DEAD_LETTER: self._count_dead_letter,
            Effect.REPORT_NO_TOPIC: self._report_no_topic,
            Effect.REPORT_LAPSE: self._leases.report_lapse,
            Effect.RENEW: self._leases.renew,
            Effect.SET_LEASE: self._leases.set_lease,
            Effect.KEEP_LEASE: self._leases.keep_lease,
            Effect.REMOVE_ACKNOWLEDGED: self._remove_acknowledged,
            Effect.REMOVE: self._remove,
        }

    # -- for consumers, from any thread -----------------------------------------------------------

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Settle a delivery; False, and no effect, if it is settled already. Does not block."""
        if not delivery.take_settlement():
            return False
        self._ports.post(self._apply, delivery, settlement)
        return True

    def start(self, delivery: Delivery, hold_seconds: float) -> None:
        """A run begins, or gets more time: keep the lease for at most ``hold_seconds`` from now.

        That it begins may be noted when its lease is looked at; for more time that is too late.
        """
        post = self._ports.post if delivery.hold_until else self._ports.post_lazily
        post(self._started, delivery, self._ports.clock() + hold_seconds)

    def resume(self) -> None:
        """Pull again: the consumer has reached what was taken from it."""
        self._ports.post(self._resume)

    def abandon(self, delivery: Delivery) -> None:
        """Give back a delivery that can no longer be settled; a started run lets its lease end."""
        self._ports.post(self._abandon, delivery)

    def _abandon(self, delivery: Delivery) -> None:
        if not delivery.hold_until and delivery.take_settlement():
            delivery.check_out()
            self._apply(delivery, Return())

    # -- how much ---------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Messages that have a slot."""
        return self._slots_taken

    @property
    def buffered(self) -> int:
        """Messages that are ready and wait for a slot."""
        return max(0, self._local - self._slots_taken)

    @property
    def renewals(self) -> int:
        """Renewals of leases since the start."""
        return self._leases.renewals

    @property
    def oldest_published_at(self) -> float:
        """When the oldest message that waits for a slot was published; 0.0: none waits.

        Since the epoch; without redeliveries, which wait for something else. From any thread.
        """
        buffered = self._buffer.copy()  # one step under the interpreter's lock
        received = [each.received for each in buffered if not each.received.redelivered]
        return min((each.published_at.timestamp() for each in received), default=0.0)

    @property
    def concurrency(self) -> int:
        """Slots."""
        return self._supply.concurrency

    @property
    def limit(self) -> int:
        """Messages that may be here at a time, dispatched and ready."""
        return self._supply.limit

    def free(self) -> int:
        """Return how many more messages may be pulled now."""
        if not self._may_pull() or self._local_bytes >= self.spec.buffer_bytes:
            return 0
        return max(0, self.limit - self._local)

    def may_pull(self) -> bool:
        """Say whether a stream may stay open."""
        if self.waiting >= self.spec.max_waiting_retries and not self._is_waiting_reported:
            self._is_waiting_reported = True
            logger.warning(
                "Queue %s has %d failed messages waiting for their retry; it pulls nothing more "
                "until some have been retried",
                self.spec.queue,
                self.waiting,
                extra={"action": "waiting_retries_full", "queue": self.spec.queue},
            )
        return self._may_pull()

    def _may_pull(self) -> bool:
        is_full = self.waiting >= self.spec.max_waiting_retries
        return not (self.is_stopping or self.is_paused or is_full)

    def is_exhausted(self, stream: PullStream) -> bool:
        """Say whether the server thinks the stream full, and will, while there is room here."""
        max_bytes = self.spec.buffer_bytes
        has_room = self._local < self.limit and self._local_bytes < max_bytes
        return has_room and stream.is_full(max_bytes)

    def is_outgrown(self, stream: PullStream) -> bool:
        """Say whether a stream with another limit should take a stream's place.

        The limit of an open stream can't be changed. So one that is too low is replaced when that
        binds, or when the limit has doubled; one that is too high when the limit has halved.
        """
        limit = self.limit
        is_far_off = limit >= 2 * stream.limit or limit <= stream.limit // 2
        return is_far_off or self.is_exhausted(stream)

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many messages may be dispatched at a time."""
        self._supply.concurrency = concurrency
        self._dispatch_ready()
        self.on_change()

    def _resume(self) -> None:
        self.is_paused = False
        self.on_change()

    # -- arrival ----------------------------------------------------------------------------------

    def receive(self, raw: Any, stream: PullStream) -> None:
        """Take one ``ReceivedMessage`` from the server."""
        now = self._ports.clock()
        outstanding = self._ports.outstanding
        key = (self.spec.subscription, raw.message.message_id)
        known = outstanding.find(key)
        lease_until = now + self._leases.schedule.first_seconds
        owner: Any = known.subscription if known is not None else None  # perhaps a cancelled one
        if known is not None and known.state not in (State.WAITING, State.RETURNING):
            owner.take_copy(known, raw.ack_id, lease_until)
            return
        is_redelivered = raw.delivery_attempt > 1 or outstanding.was_returned(key)
        received = read_message(self.spec.subscription, raw, redelivered=is_redelivered)
        delivery = Delivery(
            subscription=self,
            source=stream,
            received=received,
            size=len(received.data),
            ack_id=raw.ack_id,
            received_at=now,
            lease_until=lease_until,
        )
        if self._is_ordered:
            self._ordering.enter(delivery, instead_of=known)
        if owner is not None:
            owner.supersede(known)
        outstanding.add(delivery)
        stream.enter(delivery.size)
        self.received += 1
        self._local += 1
        self._local_bytes += delivery.size
        self._decide(delivery)

    def take_copy(self, delivery: Delivery, ack_id: str, lease_until: float) -> None:
        """Take the newest ack id of a message that is still here; the copy is never run."""
        delivery.ack_id = ack_id
        delivery.lease_until = lease_until
        self._apply(delivery, Signal.COPIED)

    def supersede(self, delivery: Delivery) -> None:
        """See the end of a delivery that was given back: its message is here again."""
        self._apply(delivery, Signal.COPIED)

    def _decide(self, delivery: Delivery) -> None:
        decision = self._policy.decide(delivery.received)
        if isinstance(decision, Deliver) and not self.is_stopping:
            delivery.payload = decision.payload
            delivery.payload["properties"]["delivery_tag"] = delivery.tag
        else:
            delivery.check_out()
            delivery.take_settlement()
        self._apply(delivery, decision)

    def _enqueue(self, delivery: Delivery, _event: Event) -> None:
        delivery.buffered_at = self._ports.clock()
        if not self._is_ordered or self._ordering.is_head(delivery):
            self._buffer.append(delivery)
            self._dispatch_ready()

    def _dispatch_ready(self) -> None:
        while self._buffer and self._slots_taken < self._supply.concurrency:
            self._apply(self._buffer.popleft(), _SLOT_FREE)

    def _take_slot(self, delivery: Delivery, _event: Event) -> None:
        delivery.has_slot = True
        self._slots_taken += 1
        delivery.dispatched_at = self._ports.clock()
        self._supply.add_wait(delivery.dispatched_at - delivery.buffered_at)

    def _hand_on(self, delivery: Delivery, _event: Event) -> None:
        self._dispatch(delivery)

    # -- transitions ------------------------------------------------------------------------------

    def _apply(self, delivery: Delivery, event: Event) -> None:
        """Make a delivery's transition, and do what it leads to."""
        before, kind = delivery.state, type(event)
        key: tuple[State, object] = (before, event if kind is Signal else kind)
        state, effects = self._steps.get(key) or self._learn(key, event)
        delivery.state = state
        if state is not before and (state is _WAITING or before is _WAITING):
            self.waiting += 1 if state is _WAITING else -1
        for effect in effects:
            effect(delivery, event)

    def _learn(self, key: tuple[State, object], event: Event) -> _Step:
        state, effects = transition(key[0], event, self._facts)
        step = self._steps[key] = (state, tuple(self._effects[effect] for effect in effects))
        return step

    def _leave(self, delivery: Delivery, _event: Event) -> None:
        """Free the delivery's slot for another."""
        self._ports.timer.forget(delivery)
        if delivery.has_slot:
            delivery.has_slot = False
            self._slots_taken -= 1
            self._supply.add_run(self._ports.clock() - delivery.dispatched_at)
            self.is_paused = False
        self._local -= 1
        self._local_bytes -= delivery.size
        if delivery.state is not _WAITING:
            delivery.is_leaving = True
            delivery.source.start_leaving(delivery.size)
        delivery.payload = None
        if self._is_ordered and delivery.state is _SETTLING:
            following = self._ordering.leave(delivery)
            if following is not None and following.state is _BUFFERED:
                self._buffer.append(following)
        self._dispatch_ready()
        if self._is_starved(delivery.source):
            self._supply.starve()
        self.on_change()

    def _is_starved(self, stream: PullStream) -> bool:
        """Say whether a slot is idle and only the limit keeps the server quiet.

        What is on its way here is outstanding, too, for the server: so nearly the limit is enough.
        """
        is_idle = self._slots_taken < self._supply.concurrency
        return is_idle and stream.outstanding >= _NEARLY * stream.limit and self._may_pull()

    def _acknowledge(self, delivery: Delivery, _event: Event) -> None:
        """Acknowledge; the delivery is kept until the server confirms."""
        asked_at = self._ports.clock()

        def answered(confirmed: bool) -> None:
            if confirmed:
                seconds = self._ports.clock() - asked_at
                self._supply.add_refill(seconds)
                self.confirmations.add(seconds)
            self._apply(delivery, _CONFIRMED if confirmed else Signal.REFUSED)

        # What follows this one of its ordering key, or may take its place, comes only then.
        is_urgent = self._is_ordered or self._is_starved(delivery.source)
        self._ports.acks.ack(delivery.ack_id, answered, is_urgent=is_urgent)

    def _start_wait(self, delivery: Delivery, event: Event) -> None:
        assert isinstance(event, Lapse | Defer)
        now = self._ports.clock()
        delivery.lease_until = now + max(1.0, event.delay_seconds)
        delivery.hold_until = now + event.delay_seconds

    def _nack(self, delivery: Delivery, _event: Event) -> None:
        reader = delivery.source.reader
        if reader is None:
            self._return_now(delivery)
        else:
            self._spawn(self._return_after(reader, delivery))

    async def _return_after(self, reader: asyncio.Future[None], delivery: Delivery) -> None:
        """Return it when its stream has ended, if it will: else it is redelivered there at once."""
        if not self.may_pull():
            await asyncio.wait({reader}, timeout=_STREAM_END_SECONDS)
        if delivery.state is State.RETURNING:
            self._return_now(delivery)

    def _return_now(self, delivery: Delivery) -> None:
        def answered(confirmed: bool) -> None:
            self._apply(delivery, Signal.CONFIRMED if confirmed else Signal.REFUSED)

        self._ports.acks.modify(delivery.ack_id, 0, answered)

    # -- dead letters -----------------------------------------------------------------------------

    def _publish(self, delivery: Delivery, event: Event) -> None:
        if isinstance(event, SendAgain):
            self._spawn(self._publish_again(delivery))
            return
        assert isinstance(event, DeadLetter)
        self._spawn(self._publish_dead_letter(delivery, event))

    async def _publish_dead_letter(self, delivery: Delivery, event: DeadLetter) -> None:
        is_published = await publish_dead_letter(
            self._ports.publish, self.spec, delivery.received, event.attributes
        )
        self._apply(delivery, Signal.PUBLISHED if is_published else Signal.PUBLISH_FAILED)

    async def _publish_again(self, delivery: Delivery) -> None:
        is_sent = await publish_again(self._ports.publish, self.spec, delivery.received)
        self._apply(delivery, Signal.SENT_AGAIN if is_sent else Signal.PUBLISH_FAILED)

    def _count_dead_letter(self, _delivery: Delivery, _event: Event) -> None:
        self._ports.count_dead_letter(self.spec.queue)

    def _report_no_topic(self, delivery: Delivery, _event: Event) -> None:
        report_missing_topic(self.spec, delivery.received)

    # -- the delivery's end -----------------------------------------------------------------------

    def _remove_acknowledged(self, delivery: Delivery, event: Event) -> None:
        self._remove(delivery, event, is_acknowledged=True)

    def _remove(self, delivery: Delivery, _event: Event, *, is_acknowledged: bool = False) -> None:
        if delivery.timer_slot:
            self._ports.timer.forget(delivery)
        if self._is_ordered:
            for behind in self._ordering.cut(delivery):
                if behind.check_out():
                    self._return_unrun(behind)
        delivery.source.leave(delivery.size, was_leaving=delivery.is_leaving)
        self._ports.outstanding.remove(delivery, is_acknowledged=is_acknowledged)
        if delivery.is_leaving:
            return  # what a puller may wait for changed when it left its slot
        if self.waiting < self.spec.max_waiting_retries:
            self._is_waiting_reported = False
        self.on_change()

    def _return_unrun(self, delivery: Delivery) -> None:
        delivery.take_settlement()
        self._apply(delivery, Return())

    # -- leases -----------------------------------------------------------------------------------

    def _started(self, delivery: Delivery, hold_until: float) -> None:
        if delivery.state is _DISPATCHED:
            delivery.hold_until = hold_until
            if not delivery.is_settled:  # else its settlement is on its way here
                self._leases.watch(delivery)

    def lease_due(self, delivery: Delivery, now: float) -> None:
        """Renew the lease, give the message back, or see it lapse."""
        signal = self._leases.schedule.look(delivery, now)
        if signal is not Signal.NOT_TAKEN:
            self._apply(delivery, signal)
        elif not delivery.check_out():
            self._apply(delivery, self._leases.schedule.look_at_taken(delivery, now))
        else:
            had_slot = delivery.has_slot
            delivery.take_settlement()
            self._apply(delivery, signal)
            # Its consumer resumes when it reaches what was taken from it; else a free slot does.
            self.is_paused = had_slot or self._slots_taken > 0
            self.on_change()

    # -- the end ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Pull nothing more, and give back all that the consumer has not taken."""
        self.is_stopping = True
        self._facts = self._facts._replace(is_stopping=True)
        self._steps.clear()
        self.on_change()
        ready = (State.BUFFERED, State.DISPATCHED)
        for delivery in list(self._ports.outstanding.values()):
            if delivery.subscription is self and delivery.state in ready and delivery.check_out():
                self._return_unrun(delivery)
        self._buffer.clear()

    async def decided(self) -> None:
        """Wait until what arrived has been decided on."""
        while self._background:
            await asyncio.wait(set(self._background))

    async def settled(self) -> None:
        """Wait until the server has answered everything."""
        while self._background or not self._ports.acks.idle:
            await self.decided()
            await self._ports.acks.wait_idle()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
