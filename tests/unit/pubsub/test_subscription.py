"""The states of a delivery, with a clock that the test moves and a server that it plays."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from convotic_pubsub.consume.delivery import Delivery, Outstanding, PullStream, State
from convotic_pubsub.consume.ports import Ports
from convotic_pubsub.consume.subscription import Subscription
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import (
    Acknowledge,
    DeadLetter,
    Defer,
    Lapse,
    Return,
    Settlement,
)
from tests.support.pubsub import PlainPolicy, make_spec

#: Beyond the ack deadline, for the outcome of a run that was stopped.
GRACE_SECONDS = 10.0


class FakeAcker:
    """Notes what was asked, and answers when told."""

    def __init__(self) -> None:
        self.acks: list[str] = []
        self.deadlines: list[tuple[str, int]] = []
        self.answers: list[Any] = []
        self.urgent: list[bool] = []
        self.idle = True

    def ack(self, ack_id: str, done: Any, *, is_urgent: bool) -> None:
        self.acks.append(ack_id)
        self.urgent.append(is_urgent)
        self.answers.append(done)

    def modify(self, ack_id: str, seconds: int, done: Any) -> None:
        self.deadlines.append((ack_id, seconds))
        self.answers.append(done)

    async def wait_idle(self) -> None:
        """Everything has been sent."""

    def confirm(self, *, confirmed: bool = True) -> None:
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(confirmed)


class FakeTimer:
    """Keeps at most one time for each delivery, as the real one does."""

    def __init__(self) -> None:
        self.due: dict[Delivery, float] = {}

    def watch(self, delivery: Delivery, when: float) -> None:
        self.due[delivery] = when
        delivery.timer_slot = 1

    def forget(self, delivery: Delivery) -> None:
        self.due.pop(delivery, None)
        delivery.timer_slot = 0


class Bench:
    """A subscription, its ports as the test plays them, and what it dispatched."""

    def __init__(self, policy: PlainPolicy | None = None, **spec: Any) -> None:
        self.now = 1000.0
        self.policy = policy or PlainPolicy()
        self.spec = make_spec(self.policy, **spec)
        self.dispatched: list[Delivery] = []
        self.dead_lettered: list[str] = []
        self.published: list[OutgoingMessage] = []
        #: What the next publishes end with.
        self.publish_errors: list[Exception] = []
        self.acker = FakeAcker()
        self.timer = FakeTimer()
        self.outstanding = Outstanding()
        self._posted: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        ports = Ports(
            clock=lambda: self.now,
            post=self._post,
            post_lazily=lambda function, *args: self._posted.append((function, args)),
            acks=self.acker,
            timer=self.timer,
            outstanding=self.outstanding,
            publish=self._publish,
            count_dead_letter=self.dead_lettered.append,
        )
        self.subscription = Subscription(self.spec, ports, self.dispatched.append)
        self.source = PullStream(limit=self.subscription.limit)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        self._posted.append((function, args))
        self.run_posted()

    def run_posted(self) -> None:
        """Run what was posted lazily, as the I/O thread does before a post and a look at leases."""
        posted, self._posted = self._posted, []
        for function, args in posted:
            function(*args)

    async def _publish(self, message: OutgoingMessage) -> str:
        self.published.append(message)
        if self.publish_errors:
            raise self.publish_errors.pop()
        return "id"

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """Settle, as a consumer does."""
        assert self.subscription.settle(delivery, settlement)

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what becomes due in its order."""
        end = self.now + seconds
        while due := [(w, d) for d, w in self.timer.due.items() if w <= end]:
            when, delivery = min(due, key=lambda pair: pair[0])
            self.now = max(self.now, when)
            self.run_posted()
            if self.timer.due.get(delivery, math.inf) <= self.now:
                self.timer.forget(delivery)
                self.subscription.lease_due(delivery, self.now)
        self.now = end

    def deliver(
        self, message_id: str = "1", attempt: int = 1, ack_id: str = "", key: str = ""
    ) -> None:
        raw = make_raw(message_id, attempt, ack_id, key)
        self.subscription.receive(raw, self.source)

    def run(self) -> Delivery:
        """Take what was dispatched last and start it, as Celery does."""
        delivery = self.dispatched[-1]
        assert delivery.check_out()
        self.subscription.start(delivery, self.spec.ack_deadline_seconds + GRACE_SECONDS)
        return delivery


def make_bench_with_one_waiting(ack_deadline_seconds: float) -> tuple[Bench, Delivery]:
    """Return a bench whose one slot message 1 has; message 2 waits for it."""
    bench = Bench(concurrency=1, buffer_messages=1, ack_deadline_seconds=ack_deadline_seconds)
    bench.deliver("1")
    running = bench.run()
    bench.deliver("2")
    return bench, running


def make_raw(message_id: str, attempt: int = 1, ack_id: str = "", key: str = "") -> Any:
    """Return a ``ReceivedMessage`` of one byte."""
    message = SimpleNamespace(
        message_id=message_id,
        data=b"1",
        attributes={},
        ordering_key=key,
        publish_time=SimpleNamespace(seconds=0, nanos=0),
    )
    return SimpleNamespace(
        message=message,
        delivery_attempt=attempt,
        ack_id=ack_id or f"ack-{message_id}-{attempt}",
    )


async def turn() -> None:
    """Let the tasks that were started run to their end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_offers_up_to_concurrency_and_keeps_the_rest_ready() -> None:
    """With one place and a buffer of one, the second message waits for the first."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")
    assert len(bench.dispatched) == 1
    assert bench.subscription.free() == 0

    bench.settle(bench.run(), Acknowledge())

    assert [each.received.message_id for each in bench.dispatched] == ["1", "2"]
    assert bench.subscription.free() == 1


async def test_an_acknowledgement_is_urgent_where_something_waits_for_it() -> None:
    """The server sends nothing beyond its limit, and of an ordering key nothing behind this."""
    idle = Bench(concurrency=2, buffer_messages=1)
    idle.deliver("1")
    idle.settle(idle.run(), Acknowledge())
    full = Bench(concurrency=1, buffer_messages=1)
    for number in (1, 2):
        full.deliver(str(number))
    full.settle(full.run(), Acknowledge())  # the second one takes its slot
    full.settle(full.run(), Acknowledge())
    ordered = Bench(concurrency=2, buffer_messages=1, enable_message_ordering=True)
    ordered.deliver("1", key="k")
    ordered.settle(ordered.run(), Acknowledge())

    assert idle.acker.urgent == [False]
    assert full.acker.urgent == [False, True]
    assert ordered.acker.urgent == [True]


async def test_state_is_kept_until_the_server_has_confirmed_the_ack() -> None:
    """A copy that arrives before the confirmation is acknowledged too, not run."""
    bench = Bench()
    bench.deliver("1")
    bench.settle(bench.run(), Acknowledge())
    assert len(bench.outstanding) == 1

    bench.deliver("1", attempt=2)
    bench.acker.confirm()

    assert bench.acker.acks == ["ack-1-1", "ack-1-2"]
    assert len(bench.dispatched) == 1
    assert not bench.outstanding
    assert bench.source.outstanding == 0


async def test_a_copy_of_what_was_given_back_is_a_new_delivery() -> None:
    """A nacked message that is redelivered before the answer must be run, never acknowledged."""
    bench = Bench(concurrency=2)
    bench.deliver("1")
    delivery = bench.run()
    bench.settle(delivery, Return())
    await turn()

    bench.deliver("1", attempt=2)
    await turn()
    bench.acker.confirm()

    assert bench.acker.acks == []
    assert len(bench.dispatched) == 2
    assert list(bench.outstanding.values()) == [bench.dispatched[1]]


async def test_a_failed_run_lets_its_lease_end_when_asked_and_frees_its_place() -> None:
    """30 s after its start, not after its failure: 4 s were used, 26 are left."""
    bench = Bench(ack_deadline_seconds=30)
    bench.deliver("1")
    delivery = bench.run()
    bench.advance(4)

    bench.settle(delivery, Lapse(26.0))
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 26)]
    assert bench.subscription.waiting == 1
    assert bench.subscription.free() == 2
    bench.advance(26.1)
    assert bench.subscription.waiting == 0
    assert not bench.outstanding


async def test_no_delay_is_shorter_than_a_second() -> None:
    """Pub/Sub takes whole seconds, and 0 would be a nack."""
    bench = Bench()
    bench.deliver("1")

    bench.settle(bench.run(), Lapse(0.0))
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 1)]


async def test_a_short_run_costs_no_renewal() -> None:
    """A message that is settled within its first lease is never renewed."""
    bench = Bench(ack_deadline_seconds=30)
    bench.deliver("1")
    delivery = bench.run()

    bench.advance(20)
    bench.settle(delivery, Acknowledge())
    bench.advance(60)

    assert bench.acker.deadlines == []


async def test_a_run_that_ended_before_its_start_is_noted_has_no_timer() -> None:
    """Its settlement is on its way; what the timer had is forgotten with it."""
    bench = Bench()
    bench.deliver("1")
    delivery = bench.dispatched[-1]
    before = dict(bench.timer.due)
    assert delivery.check_out()
    assert delivery.take_settlement()

    bench.subscription.start(delivery, 100.0)
    bench.run_posted()

    assert bench.timer.due == before
    bench.subscription._apply(delivery, Acknowledge())
    bench.acker.confirm()
    assert bench.timer.due == {}


@pytest.mark.parametrize(("ack_deadline", "until"), [(30.0, 40.0), (5.0, 15.0), (1200.0, 1210.0)])
async def test_a_running_message_is_held_until_its_deadline_and_grace_and_no_longer(
    ack_deadline: float, until: float
) -> None:
    """Renewed in steps of at most a minute; bounded by ack deadline plus grace from the start."""
    bench = Bench(ack_deadline_seconds=ack_deadline)
    bench.deliver("1")
    delivery = bench.run()

    bench.advance(ack_deadline)
    assert delivery.lease_until > bench.now
    bench.advance(300)

    assert until <= delivery.lease_until - 1000.0 <= until + 1
    assert all(1 <= seconds <= 60 for _, seconds in bench.acker.deadlines)
    assert delivery.state is State.DISPATCHED  # its place stays taken: the run can't be stopped
    assert delivery.lapse_seen


async def test_a_copy_of_a_run_past_its_deadline_is_held_and_acknowledged_at_its_end() -> None:
    """The newest ack id is the one that counts when the first run succeeds after all."""
    bench = Bench(ack_deadline_seconds=10)
    bench.deliver("1")
    delivery = bench.run()
    bench.advance(25)

    bench.deliver("1", attempt=2)
    assert len(bench.dispatched) == 1
    bench.settle(delivery, Acknowledge())
    await turn()

    assert bench.acker.acks == ["ack-1-2"]


async def test_a_run_that_hangs_is_reported_although_each_copy_has_a_new_lease() -> None:
    """Pub/Sub delivers it again before the lease that the last copy gave it has ended."""
    bench = Bench(ack_deadline_seconds=10)
    bench.deliver("1")
    delivery = bench.run()

    for attempt in range(2, 5):
        bench.advance(8)
        bench.deliver("1", attempt=attempt)

    assert delivery.hold_until < bench.now < delivery.lease_until
    assert delivery.lapse_seen


async def test_what_waits_too_long_is_given_back_and_pulling_stops_until_a_place_is_free() -> None:
    """A worker does not hoard: after one ack deadline the buffer goes back, once."""
    bench, running = make_bench_with_one_waiting(20)

    bench.advance(21)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines
    assert not bench.subscription.may_pull()
    bench.settle(running, Acknowledge())
    assert bench.subscription.may_pull()


async def test_what_is_given_back_does_not_return_through_the_stream_that_is_ending() -> None:
    """The server would send it there at once, to wait for another ack deadline."""
    bench = Bench(concurrency=1, buffer_messages=1, ack_deadline_seconds=20)
    bench.source.reader = asyncio.get_running_loop().create_future()
    bench.deliver("1")
    bench.run()
    bench.deliver("2")

    bench.advance(21)
    await turn()
    assert ("ack-2-1", 0) not in bench.acker.deadlines
    bench.source.reader.set_result(None)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines


async def test_an_ordinary_message_is_held_as_long_as_it_is_unsettled() -> None:
    """An ETA task waits for an hour; its lease is renewed all the while."""
    bench = Bench(ack_deadline_seconds=60, max_lease_seconds=7 * 24 * 3600.0)
    bench.deliver("1")
    assert bench.dispatched[0].check_out()

    bench.advance(3600)

    assert bench.dispatched[0].lease_until > bench.now
    assert not bench.dispatched[0].lapse_seen


async def test_a_policy_that_raises_costs_no_worker_and_no_silent_loss() -> None:
    """An error in the policy dead-letters that message and nothing else."""

    class Policy(PlainPolicy):
        def decide(self, received: Any) -> Any:
            raise RuntimeError(received.message_id)

    bench = Bench(Policy())
    bench.deliver("1")
    await bench.subscription.decided()

    assert bench.dead_lettered == [bench.spec.queue]
    assert bench.acker.acks == ["ack-1-1"]


async def test_a_dead_letter_that_is_not_confirmed_is_not_acknowledged() -> None:
    """The message's lease ends by itself; Pub/Sub brings it again."""
    bench = Bench()
    bench.publish_errors = [ConnectionError("refused for good")]
    bench.deliver("1")

    bench.settle(bench.run(), DeadLetter({"convotic-dead-letter-reason": "rejected"}))
    await bench.subscription.decided()

    assert bench.acker.acks == []
    assert bench.subscription.waiting == 1
    bench.advance(60)
    assert not bench.outstanding


async def test_starves_only_when_the_server_counts_more_than_is_here() -> None:
    """Failed messages fill a stream while there is room: that is when a fresh one is needed."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")
    assert not bench.subscription.is_exhausted(bench.source)

    bench.settle(bench.run(), Lapse(30))
    await turn()

    assert bench.subscription.is_exhausted(bench.source)


async def test_stopping_gives_back_what_was_not_taken() -> None:
    """A cancelled consumer keeps what runs and hands back the rest."""
    bench = Bench(concurrency=2, buffer_messages=2)
    for number in "1234":
        bench.deliver(number)
    assert bench.dispatched[0].check_out()

    bench.subscription.stop()
    await turn()

    assert [ack_id for ack_id, _ in bench.acker.deadlines] == ["ack-2-1", "ack-3-1", "ack-4-1"]
    assert not bench.subscription.may_pull()
    bench.deliver("5")
    await turn()
    assert bench.acker.deadlines[-1] == ("ack-5-1", 0)


async def test_what_was_given_back_is_known_when_it_comes_again() -> None:
    """Without counts of the service, a returned message is still told as redelivered."""
    bench = Bench(max_delivery_attempts=0)
    bench.deliver(attempt=0)
    bench.settle(bench.dispatched[0], Return())
    await bench.subscription.decided()
    bench.acker.confirm()

    bench.deliver(attempt=0, ack_id="again")
    await bench.subscription.decided()
    bench.deliver("2", attempt=0)
    await bench.subscription.decided()

    assert [each.received.redelivered for each in bench.dispatched[:2]] == [False, True]


async def test_a_bounded_memory_forgets_the_oldest() -> None:
    """Ten thousand messages given back cost no more memory than that."""
    bench = Bench(concurrency=3)
    for name in "abc":
        bench.deliver(name)
    outstanding = Outstanding(max_returned=2)

    for index in (0, 1, 0, 2):
        outstanding.remove(bench.dispatched[index], is_acknowledged=False)

    name = bench.spec.subscription
    assert [outstanding.was_returned((name, each)) for each in "abc"] == [True, False, True]


async def test_a_deferred_message_waits() -> None:
    """Its lease ends when its delay does."""
    bench = Bench()
    bench.deliver("1")

    bench.settle(bench.run(), Defer(20.0))
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 20)]


async def test_a_policy_may_defer() -> None:
    """The decision costs no attempt either, and frees the place."""
    bench = Bench()
    bench.policy.decisions[b"1"] = Defer(20.0)

    bench.deliver("1")
    await turn()

    assert bench.dispatched == []
    assert bench.acker.deadlines == [("ack-1-1", 20)]
    assert bench.subscription.free() == bench.subscription.limit
