"""Hundreds of queues in one process: no thread each, no queue that starves another."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from kombu import Consumer, Queue

from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.pubsub import make_spec

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness

QUEUES = 300


@pytest.mark.parametrize("pull_mode", ["stream", "unary"])
def test_300_queues_share_one_thread_and_six_channels(
    our_emulator: str, harness: MakeHarness, pull_mode: str
) -> None:
    """At most 80 streams (or Pulls) a channel; idle and blocked queues take nothing from others.

    Beside those four: one for acknowledgements, which never wait, and one for all other calls.
    """
    specs = [make_spec(dead_letter_topic="", max_delivery_attempts=0) for _ in range(QUEUES)]
    queues = {spec.queue: spec for spec in specs}
    one = harness(our_emulator, specs[0], queues=queues, pull_mode=pull_mode)
    for spec in specs:
        one.session.resources.ensure(spec)
    threads = set(threading.enumerate())
    blocked, *others = specs
    got: list[int] = []

    def take(message: object) -> None:
        body = json.loads(message.body)  # type: ignore[attr-defined]  # kombu's message
        got.append(body)
        if body != 0:
            message.ack()  # type: ignore[attr-defined]

    channel = one.connection.channel()
    consumer = Consumer(
        channel,
        [Queue(spec.queue, channel=channel) for spec in specs],
        on_message=take,
        auto_declare=False,
    )
    consumer.consume()
    for number, spec in enumerate(specs):
        one.session.publish(OutgoingMessage(spec.topic, str(number).encode()))
        if spec is blocked:  # never settled, with two more behind it
            one.session.publish(OutgoingMessage(spec.topic, b"0"))
            one.session.publish(OutgoingMessage(spec.topic, b"0"))

    one.drain_until(lambda: set(got) == set(range(QUEUES)), seconds=10)

    assert len(others) == QUEUES - 1
    assert got.count(0) == 1
    assert set(threading.enumerate()) <= threads
    channels = one.session.broker.channels
    assert len(channels._channels) == 2 + -(-QUEUES // 80)
    assert max(each.users for each in channels._pulls) <= 80
    acking = one.session.consumers.acker(blocked.subscription)._rpc()
    assert acking.channel not in {
        channels.unary.channel,
        *(p.rpc.channel for p in channels._pulls),
    }
    consumer.cancel()
