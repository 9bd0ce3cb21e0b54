"""One consumed queue of this process: what is buffered, running, waiting; and every transition.

Owned by the I/O thread. The states are those of :class:`~convotic_pubsub.consume.delivery.State`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_pubsub.consume.dead_letters import publish_dead_letter, report_missing_topic
from convotic_pubsub.consume.delivery import Delivery, Source, State
from convotic_pubsub.consume.guarded_policy import PolicyCalls
from convotic_pubsub.consume.lease_schedule import LeaseRules
from convotic_pubsub.consume.ordering import KeyLines
from convotic_pubsub.limits import lease_seconds
from convotic_pubsub.queue import (
    Acknowledge,
    DeadLetter,
    Decision,
    Deliver,
    History,
    Incident,
    PostponeDelivery,
    QueueSpec,
    read_message,
)

if TYPE_CHECKING:
    from convotic_pubsub.session import Session

__all__ = ["Offer", "QueueConsumer"]

logger = logging.getLogger(__name__)

Offer: TypeAlias = Callable[[Delivery], None]

#: What is given back waits so long at most for the end of the stream that it came on.
_STREAM_END_SECONDS = 3.0


class QueueConsumer:
    """A queue's messages: at most ``concurrency`` offered, ``buffer_messages`` ready behind."""

    def __init__(self, session: Session, spec: QueueSpec, offer: Offer) -> None:
        self.spec = spec
        self.session = session
        self.concurrency = spec.concurrency
        #: Called when something that a puller may wait for has changed.
        self.on_change: Callable[[], None] = _nothing
        self.stopping = False
        #: A buffered message had to be given back: nothing is pulled until a place is free.
        self.paused = False
        self.waiting = 0
        self._offer_to_channel = offer
        self._acker = session.acker(spec.subscription)
        self._rules = LeaseRules(spec)
        self._policy = PolicyCalls(spec)
        self._buffer: deque[Delivery] = deque()
        self._lines = KeyLines()
        self._offered = 0
        self._local = 0
        self._local_bytes = 0
        self._warned_waiting = False
        self._background: set[asyncio.Task[None]] = set()

    # -- how much ---------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Messages that may be here at a time, offered and ready."""
        return self.concurrency + self.spec.buffer_messages

    def free(self) -> int:
        """Return how many more messages may be pulled now."""
        if self.stopping or self.paused or self.waiting >= self.spec.max_waiting_retries:
            return 0
        if self._local_bytes >= self.spec.buffer_bytes:
            return 0
        return max(0, self.limit - self._local)

    def may_pull(self) -> bool:
        """Say whether a stream may stay open."""
        if self.waiting >= self.spec.max_waiting_retries and not self._warned_waiting:
            self._warned_waiting = True
            logger.warning(
                "Queue %s has %d failed messages waiting for their retry; it pulls nothing more "
                "until some have been retried",
                self.spec.queue,
                self.waiting,
                extra={"action": "waiting_retries_full", "queue": self.spec.queue},
            )
        return not (self.stopping or self.paused or self.waiting >= self.spec.max_waiting_retries)

    def starves(self, source: Source) -> bool:
        """Say whether the server thinks the stream full, and will, while there is room here."""
        staying = source.outstanding - source.leaving
        has_room = self._local < self.limit and self._local_bytes < self.spec.buffer_bytes
        return staying >= source.limit and has_room

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many messages may be offered at a time."""
        self.concurrency = concurrency
        self._offer_ready()
        self.on_change()

    def resume(self) -> None:
        """Pull again: the consumer has come to what it missed."""
        self.paused = False
        self.on_change()

    # -- arrival ----------------------------------------------------------------------------------

    def receive(self, raw: Any, source: Source) -> None:
        """Take one ``ReceivedMessage`` from the server."""
        now = self.session.clock()
        lease_until = now + lease_seconds(self.spec.ack_deadline_seconds)
        key = (self.spec.subscription, raw.message.message_id)
        known = self.session.outstanding.get(key)
        if known is not None and known.state not in (State.WAITING, State.RETURNING):
            known.consumer.take_copy(known, raw.ack_id, lease_until)
            return
        delivery = Delivery(
            consumer=self,
            source=source,
            received=read_message(
                self.spec.subscription,
                raw,
                redelivered=raw.delivery_attempt > 1 or key in self.session.returned,
            ),
            ack_id=raw.ack_id,
            received_at=now,
            lease_until=lease_until,
        )
        if self.spec.enable_message_ordering:
            self._lines.enter(delivery, instead_of=known)
        if known is not None:
            known.consumer.returned(known)
        self.session.outstanding[key] = delivery
        source.outstanding += 1
        self._local += 1
        self._local_bytes += delivery.size
        if self._policy.may_remember(raw.delivery_attempt):
            self._watch(delivery)
            self._spawn(self._recall(delivery))
            return
        self._decide(delivery, None)
        if delivery.state in (State.BUFFERED, State.OFFERED):
            self._watch(delivery)  # only now: another thread is waking up to take it

    def take_copy(self, delivery: Delivery, ack_id: str, lease_until: float) -> None:
        """Remember the newest ack id of a message that is still here; the copy is never run."""
        delivery.ack_id = ack_id
        delivery.lease_until = lease_until
        if delivery.state is State.SETTLING:
            self._acker.ack(ack_id, lambda confirmed: self._gone(delivery, acknowledged=confirmed))
            return
        self._watch(delivery)
        if delivery.state is State.OFFERED:
            # It runs past its deadline: the server counts a delivery that is no lost worker.
            self._spawn(self._policy.record(delivery, "hand_back"))

    async def _recall(self, delivery: Delivery) -> None:
        history = await self._policy.recall(delivery)
        if delivery.state is State.RECALLING:
            self._decide(delivery, history)

    def _decide(self, delivery: Delivery, history: History | None) -> None:
        decision = self._policy.decide(delivery, history)
        if self.stopping:
            self._hand_back(delivery)
        elif isinstance(decision, Deliver):
            delivery.payload = decision.payload
            delivery.payload["properties"]["delivery_tag"] = delivery.tag
            delivery.state = State.BUFFERED
            if self._lines.is_head(delivery):
                self._buffer.append(delivery)
                self._offer_ready()
        else:
            delivery.take_claim()
            delivery.take_settlement()
            self._apply(delivery, decision)

    def _apply(self, delivery: Delivery, decision: Decision) -> None:
        if isinstance(decision, Acknowledge):
            self.ack(delivery)
        elif isinstance(decision, DeadLetter):
            self.dead_letter(delivery, decision.attributes)
        elif isinstance(decision, PostponeDelivery):
            self.postpone(delivery, decision.delay_seconds)

    def _offer_ready(self) -> None:
        while self._buffer and self._offered < self.concurrency:
            delivery = self._buffer.popleft()
            if delivery.state is State.BUFFERED:
                delivery.state = State.OFFERED
                self._offered += 1
                self._offer_to_channel(delivery)

    # -- settlement -------------------------------------------------------------------------------

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge; state is kept until the server confirms."""
        self._leave_place(delivery, State.SETTLING)
        self._acker.ack(
            delivery.ack_id, lambda confirmed: self._gone(delivery, acknowledged=confirmed)
        )

    def nack(self, delivery: Delivery, incident: Incident | None = None) -> None:
        """Return it for delivery now, to whoever asks first."""
        self._leave_place(delivery, State.RETURNING)
        self._spawn(self._release(delivery, incident))

    def lapse(self, delivery: Delivery, delay_seconds: float, *, failure: bool) -> None:
        """Let the lease end in ``delay_seconds`` and don't acknowledge: that is the redelivery."""
        self._wait(delivery, delay_seconds, "failure" if failure else None)

    def postpone(self, delivery: Delivery, delay_seconds: float) -> None:
        """Let the lease end as ``lapse`` does; it was not run, so neither failure nor loss."""
        self._wait(delivery, delay_seconds, "hand_back")

    def _wait(self, delivery: Delivery, delay_seconds: float, incident: Incident | None) -> None:
        self._leave_place(delivery, State.WAITING)
        self.waiting += 1
        now = self.session.clock()
        delivery.lease_until = now + max(1.0, delay_seconds)
        delivery.hold_until = now + delay_seconds
        self._spawn(self._release(delivery, incident))

    def dead_letter(self, delivery: Delivery, attributes: Mapping[str, str]) -> None:
        """Publish it to the dead-letter topic; acknowledge once that is confirmed."""
        if not self.spec.dead_letter_topic:
            report_missing_topic(self.spec, delivery.received)
            self.ack(delivery)
            return
        delivery.state = State.BURYING
        self._watch(delivery)
        self._spawn(self._bury(delivery, attributes))

    async def _bury(self, delivery: Delivery, attributes: Mapping[str, str]) -> None:
        publisher = self.session.publisher
        if not await publish_dead_letter(publisher, self.spec, delivery.received, attributes):
            self._leave_place(delivery, State.WAITING)
            self.waiting += 1
            delivery.hold_until = delivery.lease_until
            self._watch(delivery)
            return
        self.session.count_dead_letter(self.spec.queue)
        delivery.remembered = True
        self.ack(delivery)

    async def _release(self, delivery: Delivery, incident: Incident | None) -> None:
        """Record why, then let the lease end: at once, or when it has waited."""
        if incident is not None:
            await self._policy.record(delivery, incident)
        reader = delivery.source.reader
        if delivery.state is State.RETURNING and reader is not None and not self.may_pull():
            # Through a stream that is still open it would come straight back.
            await asyncio.wait({reader}, timeout=_STREAM_END_SECONDS)
        if delivery.state is State.GONE:
            return  # the lease ended meanwhile and the message has come again
        if delivery.state is State.WAITING:
            self._wait_on(delivery)
        else:
            self._acker.modify(delivery.ack_id, 0, lambda _: self._released(delivery))

    def _wait_on(self, delivery: Delivery) -> None:
        """Let the lease of a waiting message end when it should, or be renewed before."""
        now = self.session.clock()
        seconds = self._rules.last_lease(delivery, now)
        delivery.lease_until = now + seconds
        self._watch(delivery)
        self._acker.modify(delivery.ack_id, seconds, _ignore)

    def _released(self, delivery: Delivery) -> None:
        """The server has answered; if it refused, the lease ends by itself."""
        if delivery.state is State.RETURNING:
            self._gone(delivery, acknowledged=False)

    def _leave_place(self, delivery: Delivery, state: State) -> None:
        """Free the delivery's place for another."""
        self.session.lease_timer.forget(delivery)
        if delivery.state is State.OFFERED or (
            delivery.state is State.BURYING and delivery.payload is not None
        ):
            self._offered -= 1
            self.paused = False
        self._local -= 1
        self._local_bytes -= delivery.size
        delivery.source.leaving += state is not State.WAITING
        delivery.state = state
        delivery.payload = None
        if state is State.SETTLING:
            following = self._lines.leave(delivery)
            if following is not None and following.state is State.BUFFERED:
                self._buffer.append(following)
        self._offer_ready()
        self.on_change()

    def _gone(self, delivery: Delivery, *, acknowledged: bool) -> None:
        if delivery.state is State.GONE:
            return
        delivery.source.leaving -= delivery.state is not State.WAITING
        delivery.state = State.GONE
        self.session.lease_timer.forget(delivery)
        for behind in self._lines.cut(delivery):
            if behind.take_claim():
                self._hand_back(behind)
        delivery.source.outstanding -= 1
        key = (self.spec.subscription, delivery.received.message_id)
        if self.session.outstanding.get(key) is delivery:
            del self.session.outstanding[key]
        if acknowledged:
            self.session.returned.discard(key)
        else:
            self.session.returned.add(key)
        if acknowledged and delivery.remembered:
            self._spawn(self._policy.forget(delivery))
        self.on_change()

    def returned(self, delivery: Delivery) -> None:
        """The message is the server's again: its lease ended, or it has come again."""
        if delivery.state is State.WAITING:
            self.waiting -= 1
            self._warned_waiting = False
        self._gone(delivery, acknowledged=False)

    # -- leases -----------------------------------------------------------------------------------

    def started(self, delivery: Delivery, hold_until: float) -> None:
        """A run began: keep the lease until then."""
        if delivery.state is State.OFFERED:
            delivery.hold_until = hold_until
            self._watch(delivery)

    def _watch(self, delivery: Delivery) -> None:
        """Ask to be called when the next thing must be done about the lease."""
        self.session.lease_timer.watch(delivery, self._rules.next_look(delivery))

    def lease_due(self, delivery: Delivery, now: float) -> None:
        """Renew the lease, give the message back, or see it lapse."""
        if delivery.state is State.WAITING:
            if self._rules.waits_on(delivery, now):
                self._wait_on(delivery)
            else:
                self.returned(delivery)
        elif self._rules.waited_too_long(delivery, now) and delivery.take_claim():
            offered = delivery.state is State.OFFERED
            self._hand_back(delivery)
            # Its consumer resumes when it gets to what it missed; else a free place does.
            self.paused = offered or self._offered > 0
            self.on_change()
        elif now < self._rules.bound(delivery):
            self._renew(delivery, now)
        elif now < delivery.lease_until:  # taken but not started: it can't be given back any more
            self.session.lease_timer.watch(delivery, delivery.lease_until)
        else:
            self._see_lapse(delivery)

    def _renew(self, delivery: Delivery, now: float) -> None:
        seconds = self._rules.renewal(delivery, now)
        if seconds:
            delivery.lease_until = now + seconds
            self._acker.modify(delivery.ack_id, seconds, _ignore)
        self._watch(delivery)

    def _see_lapse(self, delivery: Delivery) -> None:
        """Its time is up: the lease ends without us; a run that can't be stopped goes on."""
        if delivery.lapse_seen:
            return
        delivery.lapse_seen = True
        logger.warning(
            "Message %s of queue %s still runs after its ack deadline; its lease has ended and "
            "Pub/Sub delivers it again",
            delivery.received.message_id,
            self.spec.queue,
            extra={"action": "lease_lapsed", "queue": self.spec.queue},
        )

    # -- the end ----------------------------------------------------------------------------------

    def _hand_back(self, delivery: Delivery) -> None:
        delivery.take_claim()
        delivery.take_settlement()
        self.nack(delivery, "hand_back")

    def hand_back_ready(self) -> None:
        """Give back all that has not been taken by the consumer."""
        self.stopping = True
        self.on_change()
        for delivery in list(self.session.outstanding.values()):
            ready = delivery.state in (State.BUFFERED, State.OFFERED)
            if delivery.consumer is self and ready and delivery.take_claim():
                self._hand_back(delivery)
        self._buffer.clear()

    def abandon(self, delivery: Delivery) -> None:
        """Give back what nobody can settle any more; a run that was started lets its lease end."""
        if not delivery.hold_until and delivery.take_settlement():
            self._hand_back(delivery)

    async def decided(self) -> None:
        """Wait until what arrived has been decided on."""
        while self._background:
            await asyncio.wait(set(self._background))

    async def settled(self) -> None:
        """Wait until the policy's notes are written and the server has answered everything."""
        while self._background or not self._acker.idle:
            await self.decided()
            await self._acker.wait_idle()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _nothing() -> None:
    """Stand in until there is a puller."""


def _ignore(_confirmed: bool) -> None:
    """A renewal that was not confirmed shows as a redelivery."""
