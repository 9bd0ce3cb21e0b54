"""Counting deliveries, and forwarding what was delivered too often."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import Broker, bodies
from tests.support.waiting import never, wait_until

SOURCE = "CloudPubSubDeadLetterSource"


def with_policy(broker: Broker, topic: str, dead: str, attempts: int = 5, **fields: Any) -> str:
    policy = t.DeadLetterPolicy.pb()(dead_letter_topic=dead, max_delivery_attempts=attempts)
    return broker.subscription(topic, dead_letter_policy=policy, **fields)


def test_attempts_are_counted_with_a_policy(broker: Broker, topic: str) -> None:
    """1 on the first delivery; nacks and lapses count, extensions do not."""
    subscription = with_policy(broker, topic, broker.topic())
    broker.publish(topic, b"x")

    first = broker.pull(subscription)
    broker.modify(subscription, first, 20)
    broker.modify(subscription, first, 0)
    second = broker.pull(subscription)
    broker.modify(subscription, second, 1)
    third = wait_until(lambda: broker.pull_now(subscription))

    attempts = [m.delivery_attempt for m in (*first, *second, *third)]
    assert attempts == [1, 2, 3]


def test_a_stream_counts_attempts_too(broker: Broker, topic: str) -> None:
    """delivery_attempt is the same on a StreamingPull."""
    subscription = with_policy(broker, topic, broker.topic())
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: len(stream.received) == 1)

    stream.modify(stream.received[:1], 0)

    wait_until(lambda: len(stream.received) == 2)
    assert [m.delivery_attempt for m in stream.received] == [1, 2]


def test_a_message_is_forwarded_after_the_last_attempt(broker: Broker, topic: str) -> None:
    """Data and attributes stay; four attributes and a new id are added."""
    dead = broker.topic()
    kept, subscription = broker.subscription(dead), with_policy(broker, topic, dead)
    [identifier] = broker.publish(topic, b"poison", attributes={"kind": "bad"})

    for _ in range(5):
        broker.modify(subscription, broker.pull(subscription), 0)

    # Google's emulator forwards when the message would be delivered again, not before.
    [received] = wait_until(lambda: broker.pull_now(subscription) or broker.pull_now(kept))
    attributes = dict(received.message.attributes)
    assert (received.message.data, attributes["kind"]) == (b"poison", "bad")
    assert received.message.message_id != identifier
    assert attributes[f"{SOURCE}DeliveryCount"] == "5"
    assert attributes[f"{SOURCE}Subscription"] == subscription.rsplit("/", 1)[1]
    assert attributes[f"{SOURCE}SubscriptionProject"] == broker.project
    assert attributes[f"{SOURCE}TopicPublishTime"].startswith("20")
    never(lambda: broker.pull_now(subscription), for_=0.3)


def test_without_its_topic_the_policy_redelivers(broker: Broker, topic: str) -> None:
    """A dead-letter topic that was deleted loses nothing."""
    dead = broker.topic()
    subscription = with_policy(broker, topic, dead)
    broker.publish(topic, b"x")
    broker.call("DeleteTopic", topic=dead)

    for _ in range(6):
        broker.modify(subscription, broker.pull(subscription), 0)

    assert bodies(broker.pull(subscription)) == [b"x"]


def test_the_dead_letter_topic_must_exist(broker: Broker, topic: str) -> None:
    """NOT_FOUND at creation."""
    with pytest.raises(grpc.RpcError) as refused:
        with_policy(broker, topic, f"projects/{broker.project}/topics/missing")

    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("attempts", [4, 101])
def test_the_number_of_attempts_has_bounds(broker: Broker, topic: str, attempts: int) -> None:
    """5 to 100."""
    dead = broker.topic()

    with pytest.raises(grpc.RpcError) as refused:
        with_policy(broker, topic, dead, attempts)

    assert refused.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,  # Google's emulator
    )
