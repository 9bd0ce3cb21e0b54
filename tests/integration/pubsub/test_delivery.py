"""What happens to a message, on our emulator and on Google's."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

from celery import signals
from kombu.asynchronous import Hub

from convotic_pubsub.queue import Acknowledge, DeadLetter, Lapse
from tests.support.pubsub import PlainPolicy, make_spec, pull, pull_all
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.pubsub.conftest import MakeHarness


def fail_zero(*retry_delays: float) -> Callable[[Any], None]:
    """Return a handler that fails on 0 until its last run."""

    def handle(message: Any) -> None:
        failures = message.headers["deliveries"] - 1
        if json.loads(message.body) != 0:
            message.ack()
        elif failures < len(retry_delays):
            message.settle(Lapse(retry_delays[failures]))
        else:
            message.settle(DeadLetter({"convotic-dead-letter-reason": "max-retries-exceeded"}))

    return handle


def test_a_failed_message_waits_without_starving_the_others(
    broker: str, harness: MakeHarness
) -> None:
    """With one place, a message that fails again and again holds up none of those behind it."""
    policy = PlainPolicy()
    one = harness(broker, make_spec(policy, concurrency=1))
    one.on_message = fail_zero(10, 1)  # the others are there before its second run
    one.consume()
    started = one.session.clock()

    one.publish(*range(21))
    one.drain_until(lambda: len(one.messages) == 21)
    one.drain_until(lambda: one.session.dead_lettered)
    took = one.session.clock() - started

    assert sorted(one.bodies) == sorted([*range(21), 0, 0])
    assert sorted(one.bodies[:21]) == list(range(21))
    assert took > 10.5
    [letter] = one.dead_letters()
    assert letter.message.attributes["convotic-dead-letter-reason"] == "max-retries-exceeded"


def test_more_waiting_messages_than_places_do_not_starve_the_queue(
    broker: str, harness: MakeHarness
) -> None:
    """Ten failures in a row on one place: fresh streams go on bringing what is behind them."""
    one = harness(broker, make_spec(concurrency=1))
    one.on_message = lambda message: (
        message.settle(Lapse(60)) if json.loads(message.body) < 10 else message.ack()
    )
    one.consume()

    one.publish(*range(20))
    one.drain_until(lambda: len(one.messages) == 20)

    assert sorted(one.bodies) == list(range(20))


def test_beyond_max_waiting_retries_nothing_is_pulled(broker: str, harness: MakeHarness) -> None:
    """A dead dependency slows the queue: with two failures waiting, the third message stays."""
    one = harness(broker, make_spec(concurrency=1, buffer_messages=0, max_waiting_retries=2))
    one.on_message = lambda message: message.settle(Lapse(8))
    one.consume()

    one.publish(*range(6))
    one.drain_until(lambda: len(one.messages) >= 2)
    one.drain_for(1.5)

    assert len(one.messages) <= 3  # one may have been under way when the second failed
    one.drain_until(lambda: len(one.messages) >= 5)


def test_a_worker_takes_no_more_than_its_places_and_buffer(
    broker: str, harness: MakeHarness
) -> None:
    """Two places and a buffer of two: the other messages stay with the server for others."""
    spec = make_spec(concurrency=2, buffer_messages=2)
    one = harness(broker, spec)
    one.consume()

    one.publish(*range(30))
    one.drain_until(lambda: len(one.messages) == 2 and len(one.session.outstanding) == 4)
    one.drain_for(0.5)

    assert len(one.messages) == 2
    assert len(one.session.outstanding) == 4
    assert len(pull_all(one.session, spec.subscription, 26)) == 26


def test_cancel_hands_back_what_waits_and_keeps_what_runs(
    broker: str, harness: MakeHarness
) -> None:
    """A cancelled consumer's buffer is with the server again, and counts no failed attempt."""
    policy = PlainPolicy()
    spec = make_spec(policy, concurrency=1, buffer_messages=3)
    one = harness(broker, spec)
    one.consume()
    one.publish(*range(4))
    one.drain_until(lambda: len(one.messages) == 1)
    wait_until(lambda: len(one.session.outstanding) == 4)

    one.cancel()
    one.session.flush()

    assert len(one.session.outstanding) == 1
    again: list[Any] = []

    def are_back() -> bool:
        again.extend(pull(one.session, spec.subscription))
        return len(again) == 3

    wait_until(are_back)
    one.messages[0].ack()
    one.session.flush()
    assert not one.session.outstanding


def test_what_waits_longer_than_the_ack_deadline_is_handed_back_once(
    broker: str, harness: MakeHarness
) -> None:
    """A buffered message is not hoarded: after its ack deadline it goes to a consumer with room."""
    policy = PlainPolicy()
    spec = make_spec(policy, concurrency=1, buffer_messages=1, ack_deadline_seconds=3)
    one = harness(broker, spec)
    one.consume()
    one.publish(1, 2)
    one.drain_until(lambda: len(one.messages) == 1)
    one.messages[0].started(60)

    wait_until(lambda: len(one.session.outstanding) == 1)
    two = harness(broker, spec, visibility_timeout_seconds=61)
    two.on_message = lambda message: message.ack()
    two.consume()
    two.drain_until(lambda: len(two.messages) == 1)

    assert two.bodies + one.bodies in ([1, 2], [2, 1])


def test_a_copy_of_what_runs_is_not_run_and_the_newest_ack_id_counts(
    broker: str, harness: MakeHarness
) -> None:
    """A message whose lease was lost while it runs: the copy is held, the ack takes both."""
    spec = make_spec(concurrency=4)
    one = harness(broker, spec)
    one.consume()
    one.publish(1)
    one.drain_until(lambda: len(one.messages) == 1)
    [delivery] = one.session.outstanding.values()
    first_ack_id = delivery.ack_id
    answered: list[bool] = []

    one.session.post(
        one.session.consumers.acker(spec.subscription).modify, first_ack_id, 0, answered.append
    )
    wait_until(lambda: delivery.ack_id != first_ack_id)
    one.drain_for(0.2)
    one.messages[0].ack()
    one.session.flush()

    assert len(one.messages) == 1
    assert not one.session.outstanding
    assert not list(pull(one.session, spec.subscription))


def test_reject_requeues_at_once_and_settling_twice_does_nothing(
    broker: str, harness: MakeHarness
) -> None:
    """A requeued message comes back; a second settlement of the first delivery has no effect."""
    one = harness(broker, make_spec())
    one.consume()
    one.publish(1)
    one.drain_until(lambda: len(one.messages) == 1)
    first = one.messages[0]

    first.reject(requeue=True)
    first.settle(DeadLetter({"convotic-dead-letter-reason": "never"}))
    one.drain_until(lambda: len(one.messages) == 2)
    one.messages[1].ack()
    one.session.flush()

    assert one.messages[1].headers["deliveries"] == 2
    assert not one.session.dead_lettered


def test_the_policy_can_acknowledge_or_dead_letter_unrun(broker: str, harness: MakeHarness) -> None:
    """What the policy refuses never reaches a consumer, and the dead letter keeps its data."""
    policy = PlainPolicy()
    policy.decisions[b'"other"'] = Acknowledge("other-target")
    policy.decisions[b'"bad"'] = DeadLetter({"convotic-dead-letter-reason": "invalid"})
    one = harness(broker, make_spec(policy))
    one.on_message = lambda message: message.ack()
    one.consume()

    one.publish("other", "bad", "good", source="api")
    one.drain_until(lambda: one.messages and one.session.dead_lettered)
    one.session.flush()

    assert one.bodies == ["good"]
    [letter] = one.dead_letters()
    assert letter.message.data == b'"bad"'
    assert dict(letter.message.attributes) == {
        "source": "api",
        "convotic-dead-letter-reason": "invalid",
    }
    assert not one.session.outstanding


def test_basic_get_returns_what_was_just_published(broker: str, harness: MakeHarness) -> None:
    """``get`` asks the server now, and None means that there is nothing."""
    one = harness(broker, make_spec())
    channel = one.connection.channel()

    assert channel.basic_get(one.spec.queue) is None
    one.publish(7)
    message = channel.basic_get(one.spec.queue)

    assert message is not None
    message.reject(requeue=True)
    again = channel.basic_get(one.spec.queue, no_ack=True)
    assert json.loads(again.body) == 7
    one.session.flush()
    assert channel.basic_get(one.spec.queue) is None


def test_a_worker_that_is_told_to_stop_takes_nothing_more(
    broker: str, harness: MakeHarness
) -> None:
    """The signal ends the loop's wait; what arrives after it is another worker's at once."""
    one = harness(broker, make_spec(ack_deadline_seconds=60))
    transport, hub = one.connection.transport, Hub()
    transport.register_with_event_loop(one.connection.connection, hub)
    loop = hub.create_loop()
    one.consume()

    signals.worker_shutting_down.send(sender="w", sig="SIGTERM", how="Warm", exitcode=0)
    assert transport.inbox.wait(0)
    next(loop)
    one.publish(1)
    wait_until(lambda: len(transport.inbox))
    next(loop)

    assert not one.messages
    one.cancel()
    wait_until(lambda: len(list(pull(one.session, one.spec.queue))) == 1)
    hub.close()


def test_a_closed_channels_messages_are_kept_for_those_who_hold_them(
    broker: str, harness: MakeHarness
) -> None:
    """One runs on and is acknowledged; the other was forgotten, and is another's at once."""
    one = harness(broker, make_spec(concurrency=2, ack_deadline_seconds=60))
    one.consume()
    one.publish("runs", "forgotten")
    one.drain_until(lambda: len(one.messages) == 2)
    channel = one.messages[0].channel

    channel.close()
    one.messages = [message for message in one.messages if b"runs" in message.body]
    gc.collect()

    back = wait_until(lambda: list(pull(one.session, one.spec.subscription)))
    assert [each.message.data for each in back] == [b'"forgotten"']
    one.messages[0].ack()
    one.session.flush()
    assert not one.session.outstanding


def test_a_closed_session_gives_back_what_was_taken_and_not_started(
    broker: str, harness: MakeHarness
) -> None:
    """A process that ends can't run it any more; what was started lets its lease end."""
    policy = PlainPolicy()
    spec = make_spec(policy, concurrency=2, ack_deadline_seconds=60)
    one, two = harness(broker, spec), harness(broker, spec, visibility_timeout_seconds=61)
    one.consume()
    one.publish("started", "held")
    one.drain_until(lambda: len(one.messages) == 2)
    started, _ = sorted(one.messages, key=lambda message: message.body, reverse=True)
    started.started(60)

    one.close()

    back = wait_until(lambda: list(pull(two.session, spec.subscription)))
    assert [each.message.data for each in back] == [b'"held"']
