"""Bounds of requests and settings: what the service refuses, and with which code."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2, field_mask_pb2
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import Broker, bodies, unique

INVALID = grpc.StatusCode.INVALID_ARGUMENT

DAY_SECONDS = 86_400


def code_of(broker: Broker, method: str, **fields: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        broker.call(method, **fields)
    code: grpc.StatusCode = refused.value.code()
    return code


def seconds(value: float) -> Any:
    return duration_pb2.Duration(seconds=int(value))


def refused(broker: Broker, topic: str, **fields: Any) -> grpc.StatusCode:
    name = f"projects/{broker.project}/subscriptions/{unique('sub')}"
    return code_of(broker, "CreateSubscription", name=name, topic=topic, **fields)


@pytest.mark.parametrize("size", [10_000_001, 5_500_000])
def test_a_publish_request_has_at_most_ten_megabytes(broker: Broker, topic: str, size: int) -> None:
    """In one message, or in two."""
    broker.needs("limits", "takes more, or fails with another code")
    messages = [t.PubsubMessage.pb()(data=b"x" * size)] * (1 if size > 10_000_000 else 2)

    assert code_of(broker, "Publish", topic=topic, messages=messages) == INVALID


def test_a_large_message_arrives(broker: Broker, topic: str, subscription: str) -> None:
    """Just below the limit of gRPC's clients; other messages wait for the next response."""
    broker.needs("bounded_responses", "puts both in one response")
    broker.publish(topic, b"x" * 3_900_000)
    broker.publish(topic, b"y" * 500_000)

    received = broker.pull_all(subscription, 2)

    assert sorted(len(body) for body in bodies(received)) == [500_000, 3_900_000]


def test_an_ordering_key_has_at_most_1024_bytes(broker: Broker, topic: str) -> None:
    """Counted in UTF-8."""
    broker.needs("limits", "not checked")
    broker.publish(topic, b"x", ordering_key="é" * 512)
    message = t.PubsubMessage.pb()(data=b"x", ordering_key="é" * 513)

    assert code_of(broker, "Publish", topic=topic, messages=[message]) == INVALID


def test_requests_of_a_subscriber_are_checked(broker: Broker, subscription: str) -> None:
    """A pull of nothing, no ack ids, a deadline out of bounds, a seek to nowhere."""
    assert code_of(broker, "Pull", subscription=subscription, max_messages=0) == INVALID
    assert code_of(broker, "Acknowledge", subscription=subscription) == INVALID
    fields = {"subscription": subscription, "ack_ids": ["x"]}
    for deadline in (-1, 601):
        code = code_of(broker, "ModifyAckDeadline", ack_deadline_seconds=deadline, **fields)
        assert code == INVALID
    assert code_of(broker, "Seek", subscription=subscription) == INVALID


def test_an_acknowledge_request_has_at_most_512_kib(broker: Broker, subscription: str) -> None:
    """Client libraries split theirs."""
    ack_ids = ["x" * 1024] * 513

    assert code_of(broker, "Acknowledge", subscription=subscription, ack_ids=ack_ids) == INVALID


def test_a_retry_policy_has_bounds(broker: Broker, topic: str) -> None:
    """0 to 600 seconds, the minimum not above the maximum; 10 and 600 are the defaults."""
    for low, high in ((-1, 10), (10, 601), (20, 10)):
        policy = t.RetryPolicy.pb()(minimum_backoff=seconds(low), maximum_backoff=seconds(high))
        assert refused(broker, topic, retry_policy=policy) == INVALID

    subscription = broker.subscription(topic, retry_policy=t.RetryPolicy.pb()())

    shown = broker.call("GetSubscription", subscription=subscription).retry_policy
    assert (shown.minimum_backoff.seconds, shown.maximum_backoff.seconds) == (10, 600)


def test_an_expiration_of_less_than_a_day_is_refused(broker: Broker, topic: str) -> None:
    """One day is the least."""
    broker.needs("defaults", "not checked")
    for ttl in (DAY_SECONDS - 1, DAY_SECONDS):
        policy = t.ExpirationPolicy.pb()(ttl=seconds(ttl))
        if ttl < DAY_SECONDS:
            assert refused(broker, topic, expiration_policy=policy) == INVALID
        else:
            broker.subscription(topic, expiration_policy=policy)


def test_there_are_at_most_64_labels(broker: Broker, topic: str) -> None:
    """Of a subscription and of a topic."""
    broker.needs("limits", "not checked")
    labels = {f"k{n}": "v" for n in range(65)}
    name = f"projects/{broker.project}/topics/{unique('topic')}"

    assert refused(broker, topic, labels=labels) == INVALID
    assert code_of(broker, "CreateTopic", name=name, labels=labels) == INVALID


@pytest.mark.parametrize(
    ("key", "value"),
    [("Key", "x"), ("1key", "x"), ("", "x"), ("a b", "x"), ("k" * 64, "x"), ("key", "X")],
)
def test_labels_have_rules(
    broker: Broker, topic: str, subscription: str, *, key: str, value: str
) -> None:
    """Lower-case letters, digits, _ and -, at most 63; of topics, subscriptions and snapshots."""
    broker.needs("limits", "not checked")
    name = f"projects/{broker.project}/topics/{unique('topic')}"
    snapshot = f"projects/{broker.project}/snapshots/{unique('snapshot')}"
    fields = {"name": snapshot, "subscription": subscription}

    assert refused(broker, topic, labels={key: value}) == INVALID
    assert code_of(broker, "CreateTopic", name=name, labels={key: value}) == INVALID
    assert code_of(broker, "CreateSnapshot", **fields, labels={key: value}) == INVALID


def test_labels_may_be_of_any_alphabet(broker: Broker) -> None:
    """And a value may be empty."""
    name = f"projects/{broker.project}/topics/{unique('topic')}"
    labels = {"größe_1-a": "北京", "k": ""}

    assert dict(broker.call("CreateTopic", name=name, labels=labels).labels) == labels


def test_an_update_mask_names_fields_that_exist(
    broker: Broker, topic: str, subscription: str
) -> None:
    """At any depth; nothing is changed otherwise."""
    broker.needs("limits", "deep paths are not checked")
    broker.needs("raw", "masks of these paths can't be written as JSON")
    wanted = t.Subscription.pb()(name=subscription, ack_deadline_seconds=20)
    changed = t.Topic.pb()(name=topic)
    for path in ("nope", "retry_policy.nope", "labels.key", "ackDeadlineSeconds", "*"):
        mask = field_mask_pb2.FieldMask(paths=["ack_deadline_seconds", path])
        code = code_of(broker, "UpdateSubscription", subscription=wanted, update_mask=mask)
        assert code == INVALID, path
        mask = field_mask_pb2.FieldMask(paths=["labels", path])
        assert code_of(broker, "UpdateTopic", topic=changed, update_mask=mask) == INVALID, path

    assert broker.call("GetSubscription", subscription=subscription).ack_deadline_seconds == 10


def test_a_snapshot_lives_seven_days_at_most(broker: Broker, subscription: str) -> None:
    """Also after an update."""
    broker.needs("iam", "UpdateSnapshot is not implemented")
    name = f"projects/{broker.project}/snapshots/{unique('snapshot')}"
    snapshot = broker.call("CreateSnapshot", name=name, subscription=subscription)
    mask = field_mask_pb2.FieldMask(paths=["expire_time"])

    snapshot.expire_time.seconds -= 3600
    assert broker.call("UpdateSnapshot", snapshot=snapshot, update_mask=mask) == snapshot
    snapshot.expire_time.seconds += DAY_SECONDS
    assert code_of(broker, "UpdateSnapshot", snapshot=snapshot, update_mask=mask) == INVALID


def test_a_page_token_comes_from_the_server(broker: Broker) -> None:
    """Anything else is refused, as is a size below zero."""
    broker.needs("limits", "takes any token")
    project = f"projects/{broker.project}"
    assert code_of(broker, "ListTopics", project=project, page_size=-1) == INVALID
    assert code_of(broker, "ListTopics", project=project, page_token="%%%") == INVALID


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"retain_acked_messages": True}, lambda s: s.retain_acked_messages),
        ({"message_retention_duration": seconds(3600)}, lambda s: s.message_retention_duration),
        ({"retry_policy": {"minimum_backoff": seconds(3)}}, lambda s: s.retry_policy),
        ({"enable_exactly_once_delivery": True}, lambda s: s.enable_exactly_once_delivery),
        ({"expiration_policy": {"ttl": seconds(2 * DAY_SECONDS)}}, lambda s: s.expiration_policy),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_can_be_changed_one_by_one(
    broker: Broker, subscription: str, fields: dict[str, Any], read: Any
) -> None:
    """What the mask names is as wanted, and shown so from then on."""
    [path] = fields
    if path == "expiration_policy":
        broker.needs("update_labels", "can't be changed")
    wanted = t.Subscription.pb()(name=subscription, ack_deadline_seconds=99, **fields)

    mask = field_mask_pb2.FieldMask(paths=[path])
    broker.call("UpdateSubscription", subscription=wanted, update_mask=mask)

    shown = broker.call("GetSubscription", subscription=subscription)
    assert shown.ack_deadline_seconds == 10
    if path == "retry_policy":
        assert shown.retry_policy.minimum_backoff.seconds == 3
    else:
        assert read(shown) == read(wanted)


def test_an_update_without_a_mask_is_refused(broker: Broker, topic: str, subscription: str) -> None:
    """Of a subscription and of a topic."""
    wanted = t.Subscription.pb()(name=subscription, ack_deadline_seconds=20)

    assert code_of(broker, "UpdateSubscription", subscription=wanted) == INVALID
    assert code_of(broker, "UpdateTopic", topic=t.Topic.pb()(name=topic)) == INVALID
