"""Seek to a time and to a snapshot; what topics and subscriptions retain."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import Broker, bodies, unique
from tests.support.waiting import never


def moment(offset_seconds: float) -> Any:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(int((time.time() + offset_seconds) * 1e6))
    return stamp


def test_seek_to_the_future_purges(broker: Broker, topic: str, subscription: str) -> None:
    """Available and leased messages are gone; what is published later arrives."""
    broker.publish(topic, b"leased")
    leased = broker.pull(subscription)
    broker.publish(topic, b"available")

    broker.call("Seek", subscription=subscription, time=moment(1))

    broker.modify(subscription, leased, 1)
    never(lambda: broker.pull_now(subscription), for_=1.3)
    broker.publish(topic, b"later")
    assert bodies(broker.pull(subscription)) == [b"later"]


def test_seek_back_replays_what_was_retained(broker: Broker, topic: str) -> None:
    """With retain_acked_messages, acknowledged messages are delivered again, under new ack ids."""
    subscription = broker.subscription(topic, retain_acked_messages=True)
    broker.publish(topic, b"1", b"2")
    old = broker.pull_all(subscription, 2)
    broker.acknowledge(subscription, old)

    broker.call("Seek", subscription=subscription, time=moment(-60))

    new = broker.pull_all(subscription, 2)
    assert bodies(new) == [b"1", b"2"]
    assert {m.ack_id for m in new}.isdisjoint(m.ack_id for m in old)


def test_seek_back_without_retention_replays_nothing(
    broker: Broker, topic: str, subscription: str
) -> None:
    """Acknowledged messages are gone by default."""
    broker.publish(topic, b"x")
    broker.acknowledge(subscription, broker.pull(subscription))

    broker.call("Seek", subscription=subscription, time=moment(-60))

    never(lambda: broker.pull_now(subscription), for_=0.3)


def test_a_snapshot_restores_what_was_unacknowledged(
    broker: Broker, topic: str, subscription: str
) -> None:
    """The backlog at its creation, and everything published since; nothing else."""
    broker.publish(topic, b"done")
    broker.acknowledge(subscription, broker.pull(subscription))
    broker.publish(topic, b"open")
    name = f"projects/{broker.project}/snapshots/{unique('snap')}"
    snapshot = broker.call("CreateSnapshot", name=name, subscription=subscription)
    broker.publish(topic, b"later")
    broker.acknowledge(subscription, broker.pull_all(subscription, 2))

    broker.call("Seek", subscription=subscription, snapshot=name)

    assert sorted(bodies(broker.pull_all(subscription, 2))) == [b"later", b"open"]
    assert snapshot.topic == topic
    assert 0 < snapshot.expire_time.seconds - time.time() <= 7 * 86_400
    broker.call("DeleteSnapshot", snapshot=name)
    with pytest.raises(grpc.RpcError) as missing:
        broker.call("GetSnapshot", snapshot=name)
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_retaining_topic_serves_later_subscriptions_by_seek(broker: Broker) -> None:
    """A new subscription has nothing, until it seeks back."""
    broker.needs("topic_retention", "delivers retained messages without a seek")
    topic = broker.topic(message_retention_duration=duration_pb2.Duration(seconds=3600))
    broker.publish(topic, b"wanted", attributes={"kind": "a"})
    broker.publish(topic, b"other", attributes={"kind": "b"})
    subscription = broker.subscription(topic, filter='attributes.kind = "a"')
    never(lambda: broker.pull_now(subscription), for_=0.2)

    broker.call("Seek", subscription=subscription, time=moment(-60))

    assert bodies(broker.pull(subscription)) == [b"wanted"]
    shown = broker.call("GetSubscription", subscription=subscription)
    assert shown.topic_message_retention_duration.seconds == 3600


def snapshot_of(broker: Broker, subscription: str) -> str:
    name = f"projects/{broker.project}/snapshots/{unique('snap')}"
    broker.call("CreateSnapshot", name=name, subscription=subscription)
    return name


def test_snapshots_are_listed(broker: Broker, topic: str, subscription: str) -> None:
    """By project."""
    name = snapshot_of(broker, subscription)

    listed = broker.call("ListSnapshots", project=f"projects/{broker.project}").snapshots

    assert [(s.name, s.topic) for s in listed if s.name == name] == [(name, topic)]
    broker.call("DeleteSnapshot", snapshot=name)


def test_a_snapshot_outlives_its_topic(broker: Broker, topic: str, subscription: str) -> None:
    """It shows _deleted-topic_."""
    broker.needs("limits", "goes on showing the topic")
    name = snapshot_of(broker, subscription)

    broker.call("DeleteTopic", topic=topic)

    assert broker.call("GetSnapshot", snapshot=name).topic == "_deleted-topic_"
    broker.call("DeleteSnapshot", snapshot=name)


def test_a_topic_lists_its_snapshots(broker: Broker, topic: str, subscription: str) -> None:
    """By name."""
    name = snapshot_of(broker, subscription)

    assert list(broker.call("ListTopicSnapshots", topic=topic).snapshots) == [name]

    broker.call("DeleteSnapshot", snapshot=name)


def test_a_snapshot_has_labels_and_an_end(broker: Broker, topic: str, subscription: str) -> None:
    """Both can be changed."""
    broker.needs("update_labels", "UpdateSnapshot is not implemented")
    del topic
    name = snapshot_of(broker, subscription)
    wanted = t.Snapshot.pb()(name=name, labels={"a": "1"}, expire_time=moment(7200))

    mask = field_mask_pb2.FieldMask(paths=["labels", "expire_time"])
    broker.call("UpdateSnapshot", snapshot=wanted, update_mask=mask)

    shown = broker.call("GetSnapshot", snapshot=name)
    assert dict(shown.labels) == {"a": "1"}
    assert shown.expire_time.seconds == wanted.expire_time.seconds
    broker.call("DeleteSnapshot", snapshot=name)


def test_a_snapshot_of_another_topic_is_refused(
    broker: Broker, topic: str, subscription: str
) -> None:
    """FAILED_PRECONDITION; one that does not exist is NOT_FOUND."""
    del topic
    name = snapshot_of(broker, subscription)
    other = broker.subscription(broker.topic())

    for snapshot, code in (
        (name, grpc.StatusCode.FAILED_PRECONDITION),
        (f"{name}x", grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            broker.call("Seek", subscription=other, snapshot=snapshot)
        assert refused.value.code() == code
    broker.call("DeleteSnapshot", snapshot=name)


def test_ack_ids_of_before_a_seek_have_no_effect(broker: Broker, topic: str) -> None:
    """What a seek brings back, and what was outstanding, is delivered and acknowledged again."""
    broker.needs("seek_voids_ack_ids", "an old ack id removes what the seek has restored")
    subscription = broker.subscription(topic, retain_acked_messages=True)
    broker.publish(topic, b"acknowledged")
    old = broker.pull_all(subscription, 1)
    broker.acknowledge(subscription, old)
    broker.publish(topic, b"outstanding")
    old += broker.pull_all(subscription, 1)

    broker.call("Seek", subscription=subscription, time=moment(-60))
    again = broker.pull_all(subscription, 2)
    broker.acknowledge(subscription, old)
    broker.modify(subscription, again, 0)

    assert sorted(bodies(broker.pull_all(subscription, 2))) == [b"acknowledged", b"outstanding"]
