"""Publishing: confirmed, batched, and each failure with its own error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from convotic_celery.context.confirmations import wait_for
from convotic_emulator.testing import _LOOP
from convotic_pubsub.errors import MessageTooLarge, PublishError, TopicNotFound
from convotic_pubsub.outgoing import IfMissing, OutgoingMessage
from convotic_pubsub.registry import session_for
from tests.support.faulty import run_faulty_server
from tests.support.proxy import run_proxy
from tests.support.pubsub import make_spec, pull_all, unique
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from convotic_emulator.testing import EmulatorThread
    from convotic_pubsub.outgoing import Sending
    from tests.integration.pubsub.conftest import MakeHarness


def test_many_publishes_are_confirmed_each_with_its_own_id(
    broker: str, harness: MakeHarness
) -> None:
    """A thousand publishes from eight threads: a thousand ids, a thousand messages."""
    one = harness(broker, make_spec())

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: one.publish(n)[0], range(1000)))

    assert len(set(ids)) == 1000
    assert one.session.resources.purge(one.spec) == 1000
    assert one.session.resources.purge(one.spec) == 0


def test_an_unknown_topic_is_an_error_that_names_it(broker: str, harness: MakeHarness) -> None:
    """A publish to a topic that does not exist raises; nothing is created on the way."""
    one = harness(broker, make_spec())
    topic = unique("nobody")

    with pytest.raises(TopicNotFound, match=topic):
        one.session.publish(OutgoingMessage(topic, b"{}")).result(PATIENCE)


@pytest.mark.parametrize("other", ["process", "thread"])
def test_a_topic_that_somebody_else_is_creating_leads_to_its_queue(
    our_emulator: str, other: str
) -> None:
    """Its subscription is created after it: what is published in between is not lost."""
    spec = make_spec()
    own = {"queues": {spec.queue: spec}}
    with run_faulty_server(our_emulator) as faulty:
        one = session_for("pubsub://test-project", {"emulator_host": faulty.address, **own})
        two = session_for("pubsub://test-project", {"emulator_host": our_emulator, **own})
        if_missing = IfMissing(declare=(spec.queue,))
        faulty.held["CreateSubscription"] = go_on = threading.Event()
        try:
            first = one.publish(OutgoingMessage(spec.topic, b"1"), if_missing=if_missing)
            wait_until(lambda: faulty.calls["CreateSubscription"])
            second = (two if other == "process" else one).publish(
                OutgoingMessage(spec.topic, b"2"), sending="directly", if_missing=if_missing
            )
            if other == "process":
                second.result(PATIENCE)
        finally:
            go_on.set()

        assert first.result(PATIENCE)
        assert second.result(PATIENCE)
        assert {each.message.data for each in pull_all(two, spec.subscription, 2)} == {b"1", b"2"}
        one.close()
        two.close()


def test_a_publisher_that_may_only_publish_does(our_emulator: str, harness: MakeHarness) -> None:
    """It can't look whether the topic's queue exists, and asks once."""
    one = harness(our_emulator, spec := make_spec())
    with run_faulty_server(our_emulator) as faulty:
        for method in ("GetSubscription", "CreateTopic", "CreateSubscription"):
            faulty.faults[method] = (grpc.StatusCode.PERMISSION_DENIED, "no")
        options = {"emulator_host": faulty.address, "queues": {spec.queue: spec}}
        session = session_for("pubsub://test-project", options)

        for _ in range(3):
            session.publish_confirmed(
                OutgoingMessage(spec.topic, b"1"), if_missing=IfMissing(declare=(spec.queue,))
            )

        assert faulty.calls["GetSubscription"] == 2  # it and its dead letters
        session.close()
    assert one.session.resources.purge(spec) == 3


def test_one_bad_message_does_not_fail_its_batch(broker: str, harness: MakeHarness) -> None:
    """An empty message, which the server refuses, fails alone."""
    one = harness(broker, make_spec())

    futures = [
        one.session.publish(OutgoingMessage(one.spec.topic, data)) for data in (b"1", b"", b"2")
    ]

    assert futures[0].result(PATIENCE)
    assert futures[2].result(PATIENCE)
    with pytest.raises(PublishError, match="refused"):
        futures[1].result(PATIENCE)
    kept = pull_all(one.session, one.spec.subscription, 2)
    assert {each.message.data for each in kept} == {b"1", b"2"}


def test_a_message_over_the_limit_is_refused_before_it_is_sent(
    broker: str, harness: MakeHarness
) -> None:
    """Ten million bytes are the service's limit, attributes included."""
    one = harness(broker, make_spec())

    with pytest.raises(MessageTooLarge, match="10,000,000"):
        one.session.publish(OutgoingMessage(one.spec.topic, b"x" * 9_999_999, {"key": "value"}))


@pytest.mark.parametrize("sending", ["blocking", "directly"])
def test_one_message_is_sent_without_the_io_thread(
    broker: str, harness: MakeHarness, sending: Sending
) -> None:
    """It is confirmed while the I/O thread is busy with something else."""
    one = harness(broker, make_spec())
    first_id = one.session.publish(OutgoingMessage(one.spec.topic, b"0"), sending=sending).result(
        PATIENCE
    )
    go_on = threading.Event()
    one.session.post(go_on.wait, PATIENCE)

    try:
        message_id = one.session.publish(
            OutgoingMessage(one.spec.topic, b"1"), sending=sending
        ).result(PATIENCE)
        assert not go_on.is_set()
    finally:
        go_on.set()

    assert message_id != first_id
    kept = pull_all(one.session, one.spec.subscription, 2)
    assert {each.message.data for each in kept} == {b"0", b"1"}


@pytest.mark.parametrize("sending", ["blocking", "directly"])
def test_it_has_the_same_errors(broker: str, harness: MakeHarness, sending: Sending) -> None:
    """The error of a refused publish has the topic's name."""
    one = harness(broker, make_spec())

    with pytest.raises(TopicNotFound, match="no-such-topic"):
        one.session.publish(OutgoingMessage("no-such-topic", b"{}"), sending=sending).result(
            PATIENCE
        )
    with pytest.raises(PublishError, match="refused"):
        one.session.publish(OutgoingMessage(one.spec.topic, b""), sending=sending).result(PATIENCE)


def test_closing_waits_for_what_was_sent_directly(
    pubsub_emulator: EmulatorThread, harness: MakeHarness
) -> None:
    """A session that closes confirms what it has sent, from any thread."""
    one = harness(pubsub_emulator.address, make_spec())
    held, go_on = threading.Event(), threading.Event()

    async def hold_the_server() -> None:
        held.set()
        go_on.wait(PATIENCE)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        threads.submit(_LOOP.run, hold_the_server())
        assert held.wait(PATIENCE)
        confirmation = one.session.publish(
            OutgoingMessage(one.spec.topic, b"1"), sending="directly"
        )
        closing = threads.submit(one.session.close)
        with pytest.raises(TimeoutError):
            closing.result(0.3)
        go_on.set()

        assert confirmation.result(PATIENCE)
        closing.result(PATIENCE)


def test_a_closed_session_publishes_no_more(our_emulator: str, harness: MakeHarness) -> None:
    """A publish that comes too late fails, and does not hang."""
    one = harness(our_emulator, make_spec())
    one.session.publish_confirmed(OutgoingMessage(one.spec.topic, b"1"))
    one.session.close()

    with pytest.raises(PublishError, match="closed"):
        one.session.publish_confirmed(OutgoingMessage(one.spec.topic, b"2"))
    with pytest.raises(PublishError, match="closed"):
        one.session.publish(OutgoingMessage(one.spec.topic, b"3")).result(PATIENCE)
    with pytest.raises(PublishError, match="closed"):
        one.session.publish(OutgoingMessage(one.spec.topic, b"4"), sending="directly").result(
            PATIENCE
        )


def test_threads_that_publish_at_once_do_not_wait_for_each_other(
    broker: str, harness: MakeHarness
) -> None:
    """One sends by itself; the others' messages share requests."""
    one = harness(broker, make_spec())

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        ids = list(
            threads.map(
                lambda n: one.session.publish_confirmed(OutgoingMessage(one.spec.topic, b"%d" % n)),
                range(500),
            )
        )

    assert len(set(ids)) == 500
    assert one.session.resources.purge(one.spec) == 500


def test_an_ordering_key_keeps_its_order(our_emulator: str, harness: MakeHarness) -> None:
    """Messages of one key arrive in the order of their publishing."""
    spec = make_spec(enable_message_ordering=True, concurrency=10)
    one = harness(our_emulator, spec)
    one.on_message = lambda message: message.ack()
    one.consume()

    futures = [
        one.session.publish(OutgoingMessage(spec.topic, str(number).encode(), ordering_key="k"))
        for number in range(100)
    ]
    for future in futures:
        future.result(PATIENCE)
    one.drain_until(lambda: len(one.messages) == 100)

    assert one.bodies == list(range(100))


def test_a_celery_message_for_a_handlers_queue_is_refused(
    broker: str, harness: MakeHarness
) -> None:
    """An envelope would be no message a handler could read."""
    one = harness(broker, make_spec())
    producer = one.connection.Producer()

    with pytest.raises(PublishError, match="raw messages"):
        producer.publish({"a": 1}, routing_key=one.spec.queue)


def test_awaited_publishes_of_many_coroutines_share_round_trips(
    pubsub_emulator: EmulatorThread,
) -> None:
    """A server 200 ms away: 500 publishes by 100 coroutines take about five round trips."""
    with run_proxy(pubsub_emulator.address) as proxy:
        session = session_for("pubsub://test-project", {"emulator_host": proxy.address})
        spec = make_spec()
        session.resources.ensure(replace(spec, queue="far"))
        message = OutgoingMessage(spec.topic, b"{}")

        async def publish(count: int) -> None:
            for _ in range(count):
                answer = session.publish(message, sending="directly")
                assert await wait_for(answer, PATIENCE)
                answer.result()

        async def publish_by_many(count: int) -> float:
            started = time.monotonic()
            await asyncio.gather(*(publish(count) for _ in range(100)))
            return time.monotonic() - started

        asyncio.run(publish_by_many(1))
        proxy.delay_seconds = 0.1
        took = asyncio.run(publish_by_many(5))
        proxy.delay_seconds = 0
        session.close()

    assert took < 50  # one after the other would take a hundred seconds


def test_an_unexpected_error_of_a_direct_publish_costs_the_next_nothing(
    our_emulator: str, harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending directly goes on: it was switched off for good, without a word."""
    one = harness(our_emulator, make_spec())
    channels = one.session.broker.channels
    message = OutgoingMessage(one.spec.topic, b"1")

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory, say")

    sendings: tuple[Sending, ...] = ("blocking", "directly")
    for sending in sendings:
        with monkeypatch.context() as broken:
            broken.setattr(channels, "publish_blocking", fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                one.session.publish(message, sending=sending).result(PATIENCE)
        assert not one.session.publisher._directly.locked()


def test_awaited_publishes_one_after_the_other_begin_no_thread_each(
    our_emulator: str, harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread waits for all of them; it ends with its session."""
    others = {*threading.enumerate()} - {threading.current_thread()}
    one = harness(our_emulator, make_spec())
    started: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        if threading.current_thread() not in others:  # an earlier test's
            started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)

    for _ in range(5):
        one.session.publish(OutgoingMessage(one.spec.topic, b"1"), sending="directly").result(
            PATIENCE
        )
    one.session.close()

    assert started == ["convotic-pubsub-publish-1"]
    wait_until(lambda: "convotic-pubsub-publish-1" not in {t.name for t in threading.enumerate()})


def test_a_missing_topic_needs_no_thread(our_emulator: str, harness: MakeHarness) -> None:
    """It is created on the I/O thread, once for all that wait for it."""
    spec = make_spec()
    one = harness(our_emulator, spec)
    one.session.resources.delete(spec)
    threads = set(threading.enumerate())

    futures = [
        one.session.publish(
            OutgoingMessage(spec.topic, b"%d" % number), if_missing=IfMissing((spec.queue,))
        )
        for number in range(100)
    ]

    assert set(threading.enumerate()) <= threads
    assert len({future.result(PATIENCE) for future in futures}) == 100
    assert one.session.resources.purge(spec) == 100
