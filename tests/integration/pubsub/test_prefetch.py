"""The prefetch count over several queues: what is held here, and for how long."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Queue

from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.pubsub import make_spec, pull_all, unique
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import pytest

    from tests.integration.pubsub.conftest import MakeHarness
    from tests.support.pubsub import Harness


def consume(one: Harness, channel: Any, queue: str) -> Consumer:
    """Consume one more queue on a channel; its messages go where the harness's go."""
    consumer = Consumer(
        channel, Queue(queue, channel=channel), on_message=one._receive, auto_declare=False
    )
    consumer.consume()
    return consumer


def test_ordinary_queues_hold_the_prefetch_count_and_no_more(
    broker: str, harness: MakeHarness
) -> None:
    """Three queues and a prefetch count of 4: 4 are handed over, each queue holds 4 at most."""
    one = harness(broker, make_spec())
    channel = one.connection.channel()
    names = [unique("ordinary") for _ in range(3)]
    for name in names:
        channel.queue_declare(name)
        for _ in range(20):
            channel.basic_publish(channel.prepare_message("1"), "", name)
    channel.basic_qos(0, 4)

    for name in names:
        consume(one, channel, name)
    one.drain_until(lambda: len(one.messages) == 4 and len(one.session.outstanding) == 12)
    one.drain_for(0.3)

    assert len(one.messages) == 4
    assert len(one.session.outstanding) == 12
    assert all(len(pull_all(one.session, name, 16)) == 16 for name in names)


def test_what_waits_for_another_queues_messages_is_given_back(
    broker: str, harness: MakeHarness
) -> None:
    """A full worker does not keep a message from others; it pulls again once there is room."""
    busy, patient = make_spec(), make_spec(ack_deadline_seconds=6)
    one = harness(broker, busy, queues={each.queue: each for each in (busy, patient)})
    one.session.resources.ensure(patient)
    channel = one.connection.channel()
    channel.basic_qos(0, 1)
    consume(one, channel, busy.queue)
    one.publish("busy")
    one.drain_until(lambda: one.bodies == ["busy"])
    consumer = consume(one, channel, patient.queue)
    one.session.publish(OutgoingMessage(patient.topic, b'"patient"')).result(PATIENCE)
    one.drain_until(lambda: len(one.session.outstanding) == 2)

    one.drain_until(lambda: len(one.session.outstanding) == 1)
    one.messages[0].ack()

    one.drain_until(lambda: one.bodies == ["busy", "patient"])
    consumer.cancel()


def test_a_cancelled_queue_keeps_no_place(broker: str, harness: MakeHarness) -> None:
    """What waited behind the messages of the cancelled queue is next."""
    first, cancelled, last = make_spec(), make_spec(concurrency=3), make_spec()
    specs = (first, cancelled, last)
    one = harness(broker, first, queues={each.queue: each for each in specs})
    channel = one.connection.channel()
    channel.basic_qos(0, 1)
    consumers, expected = [], 0
    for spec, bodies in zip(specs, ("a", "bcd", "e"), strict=True):
        one.session.resources.ensure(spec)
        consumers.append(consume(one, channel, spec.queue))
        for body in bodies:
            one.session.publish(OutgoingMessage(spec.topic, json.dumps(body).encode())).result(
                PATIENCE
            )
        expected += len(bodies)
        one.drain_until(partial(has_outstanding, one, expected))
        one.drain_for(0.1)
    assert one.bodies == ["a"]

    consumers[1].cancel()
    one.messages[0].ack()

    one.drain_until(lambda: one.bodies == ["a", "e"])


def test_a_raised_prefetch_count_takes_all_that_it_allows(
    broker: str, harness: MakeHarness
) -> None:
    """As Celery does for ETA tasks: what was held up goes on, though nothing is settled."""
    one = harness(broker, make_spec())
    channel = one.connection.channel()
    names = [unique("ordinary") for _ in range(2)]
    for name in names:
        channel.queue_declare(name)
        for _ in range(4):
            channel.basic_publish(channel.prepare_message("1"), "", name)
    channel.basic_qos(0, 4)
    for name in names:
        consume(one, channel, name)
    one.drain_until(lambda: len(one.messages) == 4)
    one.drain_until(partial(has_outstanding, one, 8))
    one.drain_for(0.2)

    channel.basic_qos(0, 8)

    one.drain_until(lambda: len(one.messages) == 8)


def has_outstanding(one: Harness, count: int) -> bool:
    return len(one.session.outstanding) == count


def test_messages_that_are_not_due_leave_room_for_those_that_are(
    broker: str, harness: MakeHarness
) -> None:
    """200 tasks with an ETA in an hour don't stop a queue of ten; what is due soon comes then."""
    one = harness(broker, make_spec(), prefix=unique("eta") + ".", default_max_outstanding=10)
    got: list[Any] = []
    came: dict[Any, datetime] = {}

    def take(body: Any, _message: object) -> None:
        got.append(body)
        came[body] = datetime.now(UTC)

    queue = Queue("later", channel=one.connection.channel())
    producer = one.connection.Producer()
    now = datetime.now(UTC)
    with one.connection.Consumer([queue], callbacks=[take]):
        for number in range(200):
            eta = (now + timedelta(hours=1)).isoformat()
            producer.publish(number, routing_key="later", headers={"eta": eta})
        soon = datetime.now(UTC) + timedelta(seconds=20)
        producer.publish("soon", routing_key="later", headers={"eta": soon.isoformat()})
        producer.publish("now", routing_key="later")
        one.drain_until(lambda: "now" in got)
        one.drain_until(lambda: "soon" in got)

    assert sorted(got) == ["now", "soon"]
    # A worker holds the last ten seconds itself.
    assert came["soon"] >= soon - timedelta(seconds=10)


def test_a_message_settled_while_another_is_being_held_lets_that_one_go(
    broker: str, harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread settles the last one just after there was no room: nothing else would come."""
    one = harness(broker, make_spec())
    channel = one.connection.channel()
    channel.basic_qos(0, 1)
    names = [unique("ordinary") for _ in range(2)]
    for name in names:
        channel.queue_declare(name)
        consume(one, channel, name)
    channel.basic_publish(channel.prepare_message("1"), "", names[0])
    one.drain_until(lambda: len(one.messages) == 1)
    has_room = channel.qos.can_consume

    def settle_late() -> bool:
        answer: bool = has_room()
        if not one.messages[0].acknowledged:
            one.messages[0].ack()
        return answer

    monkeypatch.setattr(channel.qos, "can_consume", settle_late)
    channel.basic_publish(channel.prepare_message("2"), "", names[1])

    one.drain_until(lambda: len(one.messages) == 2)
