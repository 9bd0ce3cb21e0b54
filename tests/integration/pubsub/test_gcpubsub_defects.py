"""Defects of kombu's ``gcpubsub`` (docs/transport.md) that no other test shows to be absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kombu import Consumer, Exchange, Queue

from convotic_pubsub.errors import PublishError
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.faulty import run_faulty_server
from tests.support.pubsub import make_spec, pull, unique
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness


def test_a_bad_message_costs_the_others_of_its_batch_nothing(
    broker: str, harness: MakeHarness
) -> None:
    """Pulled together with a bad envelope, the messages before and behind it arrive (b)."""
    one = harness(broker, make_spec())
    channel = one.connection.channel()
    name = unique("mixed")
    channel.queue_declare(name)
    channel.basic_publish(channel.prepare_message("before"), "", name)
    one.session.publish(OutgoingMessage(one.session.spec(name).topic, b"no envelope")).result(
        PATIENCE
    )
    channel.basic_publish(channel.prepare_message("behind"), "", name)
    got: list[Any] = []

    def take(message: Any) -> None:
        got.append(bytes(message.body))
        message.ack()

    Consumer(channel, Queue(name, channel=channel), on_message=take, auto_declare=False).consume()
    one.drain_until(lambda: len(got) == 2 and one.session.dead_lettered[name] == 1, seconds=10)
    one.session.flush()

    assert sorted(got) == [b"before", b"behind"]
    assert not one.session.outstanding


def test_a_requeued_message_is_the_same_and_the_only_one(broker: str, harness: MakeHarness) -> None:
    """No copy is published, and none stays leased (c)."""
    one = harness(broker, make_spec())
    one.on_message = lambda message: (
        message.reject(requeue=True) if len(one.messages) == 1 else message.ack()
    )
    (sent,) = one.publish("again")

    one.consume()
    one.drain_until(lambda: len(one.messages) == 2)
    one.session.flush()

    assert [each.received.message_id for each in one.messages] == [sent, sent]
    assert not one.session.outstanding
    assert not list(pull(one.session, one.spec.subscription))


def test_a_task_that_is_not_confirmed_is_not_sent(our_emulator: str, harness: MakeHarness) -> None:
    """What ``apply_async`` calls raises, with the topic and the cause (e)."""
    with run_faulty_server(our_emulator) as server:
        one = harness(server.address, make_spec())
        name = unique("refused")
        one.connection.channel().queue_declare(name)
        server.faults["Publish"] = (grpc.StatusCode.PERMISSION_DENIED, "not authorized")

        with pytest.raises(PublishError, match=f"{name}.*not authorized"):
            one.connection.Producer().publish({}, routing_key=name)


def test_a_closed_channel_leaves_the_queues_of_the_others(
    broker: str, harness: MakeHarness
) -> None:
    """Two channels of one process on a fanout: closing one takes nothing from the other (g)."""
    one = harness(broker, make_spec())
    news = Exchange(unique("news"), type="fanout", durable=False)
    first, second = one.connection.channel(), one.connection.channel()
    got: list[Any] = []
    for channel in (first, second):
        queue = Queue(unique("reader"), news, auto_delete=True)
        consumer = Consumer(channel, queue, no_ack=True, accept=["json"])
        consumer.register_callback(lambda body, _message: got.append(body))
        consumer.consume()

    first.close()
    one.connection.Producer().publish({"n": 1}, exchange=news, declare=[news])

    one.drain_until(lambda: got == [{"n": 1}])
