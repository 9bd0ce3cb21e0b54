"""The states of a delivery, with a clock that the test moves and a server that it plays."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from convotic_pubsub.consume.delivery import Delivery, Recent, Source, State
from convotic_pubsub.consume.subscription import QueueConsumer
from convotic_pubsub.queue import History, PostponeDelivery
from tests.support.pubsub import CountingPolicy, make_spec


class FakeAcker:
    """Notes what was asked, and answers when told."""

    def __init__(self) -> None:
        self.acks: list[str] = []
        self.deadlines: list[tuple[str, int]] = []
        self.answers: list[Any] = []
        self.idle = True

    def ack(self, ack_id: str, done: Any) -> None:
        self.acks.append(ack_id)
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

    def forget(self, delivery: Delivery) -> None:
        self.due.pop(delivery, None)


class FakeSession:
    """What a consumer needs of a session."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.outstanding: dict[tuple[str, str], Delivery] = {}
        self.returned = Recent(100)
        self.lease_timer = FakeTimer()
        self.fake_acker = FakeAcker()
        self.dead_lettered: list[str] = []

    def clock(self) -> float:
        return self.now

    def acker(self, _subscription: str) -> FakeAcker:
        return self.fake_acker

    def count_dead_letter(self, queue: str) -> None:
        self.dead_lettered.append(queue)

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what becomes due in its order."""
        end = self.now + seconds
        while due := [(w, d) for d, w in self.lease_timer.due.items() if w <= end]:
            when, delivery = min(due, key=lambda pair: pair[0])
            self.now = max(self.now, when)
            del self.lease_timer.due[delivery]
            delivery.consumer.lease_due(delivery, self.now)
        self.now = end


class Bench:
    """A consumer, its fakes, and what it offered."""

    def __init__(self, policy: CountingPolicy | None = None, **spec: Any) -> None:
        self.session = FakeSession()
        self.policy = policy or CountingPolicy()
        self.spec = make_spec(self.policy, **spec)
        self.offered: list[Delivery] = []
        self.consumer = QueueConsumer(self.session, self.spec, self.offered.append)  # type: ignore[arg-type]
        self.source = Source(limit=self.consumer.limit)
        self.acker = self.session.fake_acker

    def deliver(
        self, message_id: str = "1", attempt: int = 1, ack_id: str = "", key: str = ""
    ) -> None:
        message = SimpleNamespace(
            message_id=message_id,
            data=b"1",
            attributes={},
            ordering_key=key,
            publish_time=SimpleNamespace(seconds=0, nanos=0),
        )
        raw = SimpleNamespace(
            message=message,
            delivery_attempt=attempt,
            ack_id=ack_id or f"ack-{message_id}-{attempt}",
        )
        self.consumer.receive(raw, self.source)

    def run(self) -> Delivery:
        """Take the newest offer and start it, as Celery does."""
        delivery = self.offered[-1]
        assert delivery.take_claim()
        held = self.spec.ack_deadline_seconds + self.spec.deadline_grace_seconds
        self.consumer.started(delivery, self.session.now + held)
        return delivery


async def turn() -> None:
    """Let the tasks that were started run to their end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_offers_up_to_concurrency_and_keeps_the_rest_ready() -> None:
    """With one place and a buffer of one, the second message waits for the first."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")
    assert len(bench.offered) == 1
    assert bench.consumer.free() == 0

    bench.consumer.ack(bench.run())

    assert [each.received.message_id for each in bench.offered] == ["1", "2"]
    assert bench.consumer.free() == 1


async def test_state_is_kept_until_the_server_has_confirmed_the_ack() -> None:
    """A copy that arrives before the confirmation is acknowledged too, not run."""
    bench = Bench()
    bench.deliver("1")
    bench.consumer.ack(bench.run())
    assert len(bench.session.outstanding) == 1

    bench.deliver("1", attempt=2)
    bench.acker.confirm()

    assert bench.acker.acks == ["ack-1-1", "ack-1-2"]
    assert len(bench.offered) == 1
    assert not bench.session.outstanding
    assert bench.source.outstanding == 0


async def test_a_copy_of_what_was_given_back_is_a_new_delivery() -> None:
    """A nacked message that comes again before the answer must be run, never acknowledged."""
    bench = Bench(concurrency=2)
    bench.deliver("1")
    delivery = bench.run()
    bench.consumer.nack(delivery)
    await turn()

    bench.deliver("1", attempt=2)
    await turn()
    bench.acker.confirm()

    assert bench.acker.acks == []
    assert len(bench.offered) == 2
    assert list(bench.session.outstanding.values()) == [bench.offered[1]]


async def test_a_failed_run_lets_its_lease_end_when_asked_and_frees_its_place() -> None:
    """30 s after its start, not after its failure: 4 s were used, 26 are left."""
    bench = Bench(ack_deadline_seconds=30)
    bench.deliver("1")
    delivery = bench.run()
    bench.session.advance(4)

    bench.consumer.lapse(delivery, 26.0, failure=True)
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 26)]
    assert bench.policy.failures == {"1": 1}
    assert bench.consumer.waiting == 1
    assert bench.consumer.free() == 2
    bench.session.advance(26.1)
    assert bench.consumer.waiting == 0
    assert not bench.session.outstanding


async def test_no_delay_is_shorter_than_a_second() -> None:
    """Pub/Sub takes whole seconds, and 0 would be a nack."""
    bench = Bench()
    bench.deliver("1")

    bench.consumer.lapse(bench.run(), 0.0, failure=True)
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 1)]


async def test_a_short_run_costs_no_renewal() -> None:
    """A message that is settled within its first lease is never renewed."""
    bench = Bench(ack_deadline_seconds=30)
    bench.deliver("1")
    delivery = bench.run()

    bench.session.advance(20)
    bench.consumer.ack(delivery)
    bench.session.advance(60)

    assert bench.acker.deadlines == []


@pytest.mark.parametrize(("ack_deadline", "until"), [(30.0, 40.0), (5.0, 15.0), (1200.0, 1210.0)])
async def test_a_running_message_is_held_until_its_deadline_and_grace_and_no_longer(
    ack_deadline: float, until: float
) -> None:
    """Renewed in steps of at most a minute; bounded by ack deadline plus grace from the start."""
    bench = Bench(ack_deadline_seconds=ack_deadline)
    bench.deliver("1")
    delivery = bench.run()

    bench.session.advance(ack_deadline)
    assert delivery.lease_until > bench.session.now
    bench.session.advance(300)

    assert until <= delivery.lease_until - 1000.0 <= until + 1
    assert all(1 <= seconds <= 60 for _, seconds in bench.acker.deadlines)
    assert delivery.state is State.OFFERED  # its place stays taken: the run can't be stopped
    assert delivery.lapse_seen


async def test_a_copy_of_a_run_past_its_deadline_is_held_and_acknowledged_at_its_end() -> None:
    """The newest ack id is the one that counts when the first run succeeds after all."""
    bench = Bench(ack_deadline_seconds=10)
    bench.deliver("1")
    delivery = bench.run()
    bench.session.advance(25)

    bench.deliver("1", attempt=2)
    assert len(bench.offered) == 1
    bench.consumer.ack(delivery)
    await turn()

    assert bench.acker.acks == ["ack-1-2"]
    assert bench.policy.hand_backs == {"1": 1}  # that delivery was no lost worker


async def test_what_waits_too_long_is_given_back_and_pulling_stops_until_a_place_is_free() -> None:
    """A worker does not hoard: after one ack deadline the buffer goes back, once."""
    bench = Bench(concurrency=1, buffer_messages=1, ack_deadline_seconds=20)
    bench.deliver("1")
    running = bench.run()
    bench.deliver("2")

    bench.session.advance(21)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines
    assert bench.policy.hand_backs == {"2": 1}
    assert not bench.consumer.may_pull()
    bench.consumer.ack(running)
    assert bench.consumer.may_pull()


async def test_what_is_given_back_does_not_return_through_the_stream_that_is_ending() -> None:
    """The server would send it there at once, to wait for another ack deadline."""
    bench = Bench(concurrency=1, buffer_messages=1, ack_deadline_seconds=20)
    bench.source.reader = asyncio.get_running_loop().create_future()
    bench.deliver("1")
    bench.run()
    bench.deliver("2")

    bench.session.advance(21)
    await turn()
    assert ("ack-2-1", 0) not in bench.acker.deadlines
    bench.source.reader.set_result(None)
    await turn()

    assert ("ack-2-1", 0) in bench.acker.deadlines


async def test_an_ordinary_message_is_held_as_long_as_it_is_unsettled() -> None:
    """An ETA task waits for an hour; its lease is renewed all the while."""
    bench = Bench(ack_deadline_seconds=60, max_lease_seconds=7 * 24 * 3600.0)
    bench.deliver("1")
    assert bench.offered[0].take_claim()

    bench.session.advance(3600)

    assert bench.offered[0].lease_until > bench.session.now
    assert not bench.offered[0].lapse_seen


async def test_a_redelivery_asks_the_store_and_a_first_delivery_does_not() -> None:
    """``decide`` gets the history only when there may be one."""
    asked: list[str] = []

    class Policy(CountingPolicy):
        async def recall(self, received: Any) -> History | None:
            asked.append(received.message_id)
            return History(failures=3)

    bench = Bench(Policy(), concurrency=3)
    bench.deliver("1")
    bench.deliver("2", attempt=4)
    bench.deliver("3", attempt=0)  # this server does not count
    await turn()

    assert asked == ["2", "3"]
    payloads = [each.payload for each in bench.offered]
    assert [payload and payload["headers"]["attempt"] for payload in payloads] == [1, 4, 4]


async def test_a_policy_that_raises_costs_no_worker_and_no_silent_loss() -> None:
    """An error in the policy dead-letters that message and nothing else."""

    class Policy(CountingPolicy):
        def decide(self, _received: Any, _history: Any) -> Any:
            raise RuntimeError("bug")

    bench = Bench(Policy())
    bench.session.publisher = SimpleNamespace(publish=lambda *_: done_future())  # type: ignore[attr-defined]
    bench.deliver("1")
    await turn()
    await asyncio.sleep(0.01)

    assert bench.session.dead_lettered == [bench.spec.queue]
    assert bench.acker.acks == ["ack-1-1"]


def done_future() -> Any:
    """A publish that was confirmed."""
    import concurrent.futures  # noqa: PLC0415

    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    future.set_result("id")
    return future


async def test_a_dead_letter_that_is_not_confirmed_is_not_acknowledged() -> None:
    """The message's lease ends by itself; Pub/Sub brings it again."""
    import concurrent.futures  # noqa: PLC0415

    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    future.set_exception(ConnectionError("refused for good"))
    bench = Bench()
    bench.session.publisher = SimpleNamespace(publish=lambda *_: future)  # type: ignore[attr-defined]
    bench.deliver("1")

    bench.consumer.dead_letter(bench.run(), {"convotic-dead-letter-reason": "rejected"})
    await turn()
    await asyncio.sleep(0.01)

    assert bench.acker.acks == []
    assert bench.consumer.waiting == 1
    bench.session.advance(60)
    assert not bench.session.outstanding


async def test_starves_only_when_the_server_counts_more_than_is_here() -> None:
    """Failed messages fill a stream while there is room: that is when a fresh one is needed."""
    bench = Bench(concurrency=1, buffer_messages=1)
    bench.deliver("1")
    bench.deliver("2")
    assert not bench.consumer.starves(bench.source)

    bench.consumer.lapse(bench.run(), 30, failure=True)
    await turn()

    assert bench.consumer.starves(bench.source)


async def test_stopping_gives_back_what_was_not_taken() -> None:
    """A cancelled consumer keeps what runs and hands back the rest, recorded as such."""
    bench = Bench(concurrency=2, buffer_messages=2)
    for number in "1234":
        bench.deliver(number)
    assert bench.offered[0].take_claim()

    bench.consumer.hand_back_ready()
    await turn()

    assert bench.policy.hand_backs == {"2": 1, "3": 1, "4": 1}
    assert not bench.consumer.may_pull()
    bench.deliver("5")
    await turn()
    assert bench.policy.hand_backs["5"] == 1


async def test_what_was_given_back_is_known_when_it_comes_again() -> None:
    """Without counts of the service, a returned message is still told as redelivered."""
    bench = Bench(max_delivery_attempts=0)
    bench.deliver(attempt=0)
    bench.consumer.nack(bench.offered[0])
    await bench.consumer.decided()
    bench.acker.confirm()

    bench.deliver(attempt=0, ack_id="again")
    await bench.consumer.decided()
    bench.deliver("2", attempt=0)
    await bench.consumer.decided()

    assert [each.received.redelivered for each in bench.offered[:2]] == [False, True]


def test_a_bounded_memory_forgets_the_oldest() -> None:
    """Ten thousand messages given back cost no more memory than that."""
    recent = Recent(2)
    for name in ("a", "b", "a", "c"):
        recent.add(("queue", name))

    assert [("queue", name) in recent for name in "abc"] == [True, False, True]


async def test_a_postponed_message_waits_and_counts_as_handed_back() -> None:
    """Neither a failure nor a lost worker: it was not run."""
    bench = Bench()
    bench.deliver("1")

    bench.consumer.postpone(bench.run(), 20.0)
    await turn()

    assert bench.acker.deadlines == [("ack-1-1", 20)]
    assert (bench.policy.failures, bench.policy.hand_backs) == ({}, {"1": 1})


async def test_a_policy_may_postpone() -> None:
    """The decision costs no attempt either, and frees the place."""
    bench = Bench()
    bench.policy.decisions[b"1"] = PostponeDelivery(20.0)

    bench.deliver("1")
    await turn()

    assert bench.offered == []
    assert bench.policy.hand_backs == {"1": 1}
    assert bench.consumer.free() == bench.consumer.limit
