"""Topics and subscriptions: names, limits, defaults, changes, deletion, access policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.iam.v1 import iam_policy_pb2, policy_pb2  # type: ignore[import-untyped]  # no stubs
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import OURS, Broker, bodies, unique
from tests.support.waiting import PATIENCE, never

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def code_of(broker: Broker, method: str, **fields: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        broker.call(method, **fields)
    code: grpc.StatusCode = refused.value.code()
    return code


@pytest.mark.parametrize("identifier", ["custom.orders.new", "Upper", "a~b+c%d", "x" * 255])
def test_legal_names(broker: Broker, identifier: str) -> None:
    """Letters, digits and -_.~+%, 3 to 255 of them."""
    name = f"projects/{broker.project}/topics/{identifier}"

    assert broker.call("CreateTopic", name=name).name == name

    broker.call("DeleteTopic", topic=name)


@pytest.mark.parametrize(
    "identifier", ["ab", "x" * 256, "1abc", "-abc", "google-x", "a/b", "a:b", "a b", "é-é"]
)
def test_illegal_names(broker: Broker, identifier: str) -> None:
    """INVALID_ARGUMENT."""
    if set(identifier) & set(":/"):
        broker.needs("raw", "another URL")
    name = f"projects/{broker.project}/topics/{identifier}"

    assert code_of(broker, "CreateTopic", name=name) == INVALID


def test_what_exists_and_what_does_not(broker: Broker, topic: str, subscription: str) -> None:
    """ALREADY_EXISTS on creation, NOT_FOUND on use."""
    missing = f"projects/{broker.project}/topics/missing"
    absent = f"projects/{broker.project}/subscriptions/missing"

    exists = grpc.StatusCode.ALREADY_EXISTS
    assert code_of(broker, "CreateTopic", name=topic) == exists
    assert code_of(broker, "CreateSubscription", name=subscription, topic=topic) == exists
    assert code_of(broker, "GetTopic", topic=missing) == NOT_FOUND
    message = t.PubsubMessage.pb()(data=b"x")
    assert code_of(broker, "Publish", topic=missing, messages=[message]) == NOT_FOUND
    assert code_of(broker, "GetSubscription", subscription=absent) == NOT_FOUND
    assert code_of(broker, "Pull", subscription=absent, max_messages=1) == NOT_FOUND
    assert code_of(broker, "CreateSubscription", name=absent, topic=missing) == NOT_FOUND


def test_publish_requests_are_checked(broker: Broker, topic: str) -> None:
    """No messages, an empty message, more than 1,000 messages."""
    message = t.PubsubMessage.pb()

    assert code_of(broker, "Publish", topic=topic) == INVALID
    assert code_of(broker, "Publish", topic=topic, messages=[message()]) == INVALID
    many = [message(data=b"x")] * 1001
    assert code_of(broker, "Publish", topic=topic, messages=many) == INVALID


def test_attributes_are_limited(broker: Broker, topic: str) -> None:
    """100 of them, keys of 256 bytes, values of 1,024, none that begins with goog."""
    broker.needs("limits", "not checked")
    for attributes in (
        {f"k{n}": "v" for n in range(101)},
        {"k" * 257: "v"},
        {"k": "v" * 1025},
        {"googx": "v"},
    ):
        message = t.PubsubMessage.pb()(attributes=attributes)
        assert code_of(broker, "Publish", topic=topic, messages=[message]) == INVALID
    full = {"k" * 256: "v" * 1024, **{f"k{n}": "v" for n in range(99)}}
    broker.publish(topic, b"", attributes=full)


def test_the_ack_deadline_has_bounds(broker: Broker, topic: str) -> None:
    """10 to 600 seconds; 0 means 10."""
    name = f"projects/{broker.project}/subscriptions/{unique('sub')}"

    shown = broker.call("CreateSubscription", name=name, topic=topic)

    assert shown.ack_deadline_seconds == 10
    for seconds in (601, 9) if broker.features.limits else (601,):
        fields = {"name": f"{name}x", "topic": topic, "ack_deadline_seconds": seconds}
        assert code_of(broker, "CreateSubscription", **fields) == INVALID


def test_defaults_are_filled_in(broker: Broker, topic: str, subscription: str) -> None:
    """Seven days of retention; expiration after 31 days, or never when given without ttl."""
    broker.needs("defaults", "the default expiration policy is not filled in")
    lasting = broker.subscription(topic, expiration_policy=t.ExpirationPolicy.pb()())

    shown = broker.call("GetSubscription", subscription=subscription)
    assert shown.message_retention_duration.seconds == 7 * 86_400
    assert shown.expiration_policy.ttl.seconds == 31 * 86_400
    kept = broker.call("GetSubscription", subscription=lasting)
    assert kept.HasField("expiration_policy")
    assert not kept.expiration_policy.HasField("ttl")


def test_a_subscription_can_be_changed(broker: Broker, subscription: str) -> None:
    """What the mask names changes, the rest stays."""
    wanted = t.Subscription.pb()(
        name=subscription, ack_deadline_seconds=33, retain_acked_messages=True
    )

    broker.call(
        "UpdateSubscription",
        subscription=wanted,
        update_mask=field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]),
    )

    shown = broker.call("GetSubscription", subscription=subscription)
    assert shown.ack_deadline_seconds == 33
    assert not shown.retain_acked_messages


@pytest.mark.parametrize("path", ["filter", "enable_message_ordering", "topic", "nonsense"])
def test_some_fields_cannot_be_changed(broker: Broker, subscription: str, path: str) -> None:
    """INVALID_ARGUMENT, as for a field that does not exist."""
    wanted = t.Subscription.pb()(name=subscription)
    mask = field_mask_pb2.FieldMask(paths=[path])

    assert code_of(broker, "UpdateSubscription", subscription=wanted, update_mask=mask) == INVALID


def test_labels_can_be_changed(broker: Broker, topic: str, subscription: str) -> None:
    """Of topics and of subscriptions; they are replaced, not merged."""
    broker.needs("update_labels", "labels can be set at creation only")
    mask = field_mask_pb2.FieldMask(paths=["labels"])
    for labels in ({"a": "1"}, {"b": "2"}):
        changed = t.Topic.pb()(name=topic, labels=labels)
        broker.call("UpdateTopic", topic=changed, update_mask=mask)
        wanted = t.Subscription.pb()(name=subscription, labels=labels)
        broker.call("UpdateSubscription", subscription=wanted, update_mask=mask)

    assert dict(broker.call("GetTopic", topic=topic).labels) == {"b": "2"}
    shown = broker.call("GetSubscription", subscription=subscription)
    assert dict(shown.labels) == {"b": "2"}


def test_a_deleted_topic_leaves_its_subscriptions(
    broker: Broker, topic: str, subscription: str
) -> None:
    """They show _deleted-topic_, keep their backlog, and are not attached to a successor."""
    broker.publish(topic, b"x")

    broker.call("DeleteTopic", topic=topic)
    broker.call("CreateTopic", name=topic)
    broker.publish(topic, b"y")

    shown = broker.call("GetSubscription", subscription=subscription)
    assert shown.topic == "_deleted-topic_"
    assert bodies(broker.pull(subscription)) == [b"x"]
    never(lambda: broker.pull_now(subscription), for_=0.2)


def test_listings_come_in_pages(broker: Broker, topic: str) -> None:
    """The token leads through all of them."""
    names = {broker.subscription(topic) for _ in range(5)}

    found: list[str] = []
    token = ""
    for _ in range(10):
        page = broker.call("ListTopicSubscriptions", topic=topic, page_size=2, page_token=token)
        assert len(page.subscriptions) <= 2
        found += page.subscriptions
        token = page.next_page_token
        if not token:
            break

    assert sorted(found) == sorted(names)
    topics = broker.call("ListTopics", project=f"projects/{broker.project}").topics
    assert topic in [entry.name for entry in topics]


def test_a_filter_decides_who_gets_a_message(broker: Broker, topic: str) -> None:
    """By attributes; a bad expression is refused at creation."""
    broker.needs("filters", "filters are stored and not applied")
    expression = 'NOT attributes:"convotic-target" OR attributes."convotic-target" = "me"'
    subscription = broker.subscription(topic, filter=expression)

    broker.publish(topic, b"all")
    broker.publish(topic, b"me", attributes={"convotic-target": "me"})
    broker.publish(topic, b"you", attributes={"convotic-target": "you"})

    assert bodies(broker.pull_all(subscription, 2)) == [b"all", b"me"]
    never(lambda: broker.pull_now(subscription), for_=0.2)
    name = f"projects/{broker.project}/subscriptions/{unique('sub')}"
    fields = {"name": name, "topic": topic, "filter": "foo bar"}
    assert code_of(broker, "CreateSubscription", **fields) == INVALID


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("attributes:lang", b"en fr none-region"),
        ('attributes.lang = "en"', b"en"),
        ('attributes.lang != "en" AND attributes:lang', b"fr none-region"),
        ('hasPrefix(attributes.lang, "e")', b"en"),
        ('attributes:region AND NOT attributes.lang = "fr"', b"none-region"),
        ('attributes.lang = "en" OR (attributes.lang = "fr" AND attributes:region)', b"en fr"),
        ("-attributes:lang", b"plain"),
    ],
)
def test_the_filter_language(broker: Broker, topic: str, expression: str, wanted: bytes) -> None:
    """Presence, equality, prefix; NOT, AND, OR and brackets."""
    broker.needs("filters", "filters are stored and not applied")
    subscription = broker.subscription(topic, filter=expression)
    broker.publish(topic, b"plain")
    broker.publish(topic, b"en", attributes={"lang": "en"})
    broker.publish(topic, b"fr", attributes={"lang": "fr", "region": "ca"})
    broker.publish(topic, b"none-region", attributes={"lang": "", "region": "xx"})

    received = broker.pull_all(subscription, len(wanted.split()))

    assert sorted(bodies(received)) == sorted(wanted.split())
    assert broker.pull_now(subscription) == []


def test_a_filter_has_at_most_256_bytes(broker: Broker, topic: str) -> None:
    """One more is refused."""
    broker.needs("filters", "not checked")
    for length in (256, 257):
        expression = "attributes:" + "x" * (length - len("attributes:"))
        name = f"projects/{broker.project}/subscriptions/{unique('sub')}"
        fields: dict[str, Any] = {"name": name, "topic": topic, "filter": expression}
        if length > 256:
            assert code_of(broker, "CreateSubscription", **fields) == INVALID
        else:
            broker.call("CreateSubscription", **fields)


def test_a_detached_subscription_gets_nothing(
    broker: Broker, topic: str, subscription: str
) -> None:
    """Its messages are dropped, and pulling is FAILED_PRECONDITION."""
    broker.needs("detach", "DetachSubscription is not implemented")
    broker.publish(topic, b"x")

    broker.call("DetachSubscription", subscription=subscription)

    assert broker.call("GetSubscription", subscription=subscription).detached
    assert not broker.call("ListTopicSubscriptions", topic=topic).subscriptions
    failed = grpc.StatusCode.FAILED_PRECONDITION
    assert code_of(broker, "Pull", subscription=subscription, max_messages=1) == failed
    now = timestamp_pb2.Timestamp(seconds=1_800_000_000)
    assert code_of(broker, "Seek", subscription=subscription, time=now) == failed


@pytest.mark.parametrize("kind", ["topic", "subscription"])
def test_access_policies_are_kept(broker: Broker, topic: str, kind: str) -> None:
    """Set, get, and a stale etag is refused; every permission is granted."""
    broker.needs("iam", "needs another emulator for it")
    resource = topic if kind == "topic" else broker.subscription(topic)
    policy = policy_pb2.Policy()
    policy.bindings.add(role="roles/pubsub.publisher", members=["user:a@example.com"])
    request = iam_policy_pb2.SetIamPolicyRequest(resource=resource, policy=policy)
    stored = broker.iam("SetIamPolicy", request)

    shown = broker.iam("GetIamPolicy", iam_policy_pb2.GetIamPolicyRequest(resource=resource))
    assert shown == stored
    assert shown.bindings[0].role == "roles/pubsub.publisher"
    request.policy.etag = b"stale"
    with pytest.raises(grpc.RpcError):
        broker.iam("SetIamPolicy", request)
    asked = iam_policy_pb2.TestIamPermissionsRequest(
        resource=resource, permissions=["pubsub.topics.publish"]
    )
    assert list(broker.iam("TestIamPermissions", asked).permissions) == ["pubsub.topics.publish"]
    asked.resource += "-missing"
    assert not broker.iam("TestIamPermissions", asked).permissions
    asked.permissions[:] = ["pubsub.topics.*"]
    with pytest.raises(grpc.RpcError) as refused:
        broker.iam("TestIamPermissions", asked)
    assert refused.value.code() == INVALID


def test_an_access_policy_can_be_changed_in_part(broker: Broker, topic: str) -> None:
    """What the mask does not name stays; what can't be masked is refused."""
    broker.needs("iam", "needs another emulator for it")
    policy = policy_pb2.Policy(version=1)
    policy.bindings.add(role="roles/pubsub.publisher", members=["user:a@example.com"])
    request = iam_policy_pb2.SetIamPolicyRequest(resource=topic, policy=policy)
    broker.iam("SetIamPolicy", request)
    request.policy.ClearField("bindings")
    request.policy.version = 3
    request.update_mask.paths.append("version")

    changed = broker.iam("SetIamPolicy", request)

    assert (changed.version, len(changed.bindings)) == (3, 1)
    request.update_mask.paths.append("nope")
    with pytest.raises(grpc.RpcError) as refused:
        broker.iam("SetIamPolicy", request)
    assert refused.value.code() == INVALID


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"push_config": {"push_endpoint": "https://example.com/push"}}, "push"),
        ({"bigquery_config": {"table": "p.d.t"}}, "BigQuery"),
        ({"cloud_storage_config": {"bucket": "b"}}, "Cloud Storage"),
        ({"bigtable_config": {"table": "t"}}, "Bigtable"),
        ({"message_transforms": [{"disabled": True}]}, "transforms"),
        ({"tags": {"key": "value"}}, "tags"),
    ],
    ids=["push", "bigquery", "storage", "bigtable", "transforms", "tags"],
)
def test_what_is_not_supported_says_so(
    broker: Broker, topic: str, fields: dict[str, Any], reason: str
) -> None:
    """UNIMPLEMENTED with a reason, never a wrong success."""
    broker.needs("refuses_unsupported", "stores what it does not do")
    name = f"projects/{broker.project}/subscriptions/{unique('sub')}"

    with pytest.raises(grpc.RpcError) as refused:
        broker.call("CreateSubscription", name=name, topic=topic, **fields)

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert reason in (refused.value.details() or "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kms_key_name": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}, "encryption"),
        ({"ingestion_data_source_settings": {"cloud_storage": {"bucket": "b"}}}, "ingestion"),
        ({"message_transforms": [{"disabled": True}]}, "transforms"),
        ({"tags": {"key": "value"}}, "tags"),
    ],
    ids=["kms", "ingestion", "transforms", "tags"],
)
def test_what_topics_do_not_support_is_said(
    broker: Broker, fields: dict[str, Any], reason: str
) -> None:
    """UNIMPLEMENTED with a reason."""
    broker.needs("refuses_unsupported", "stores what it does not do")
    name = f"projects/{broker.project}/topics/{unique('topic')}"

    with pytest.raises(grpc.RpcError) as refused:
        broker.call("CreateTopic", name=name, **fields)

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert reason in (refused.value.details() or "")


def test_what_the_service_sets_is_not_taken_from_requests(broker: Broker, topic: str) -> None:
    """Output-only fields of topics and subscriptions."""
    broker.needs("limits", "stored and shown")
    named = f"projects/{broker.project}/topics/{unique('topic')}"
    assert not broker.call("CreateTopic", name=named, satisfies_pzs=True).satisfies_pzs
    subscription = broker.subscription(
        topic,
        topic_message_retention_duration=duration_pb2.Duration(seconds=1000),
        analytics_hub_subscription_info={"listing": "x"},
        state=2,
    )

    shown = broker.call("GetSubscription", subscription=subscription)

    assert not shown.HasField("topic_message_retention_duration")
    assert not shown.HasField("analytics_hub_subscription_info")
    assert shown.state == t.Subscription.State.ACTIVE


def test_an_unknown_method_says_so(broker: Broker) -> None:
    """UNIMPLEMENTED with its name."""
    broker.needs("raw", "another URL")
    unknown: Any = broker.channel.unary_unary(
        "/google.pubsub.v1.Imaginary/Call",
        request_serializer=None,
        response_deserializer=None,
    )
    with pytest.raises(grpc.RpcError) as missing:
        unknown(b"", timeout=PATIENCE)
    assert missing.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "Imaginary" in (missing.value.details() or "")


def test_retention_has_bounds(broker: Broker, topic: str) -> None:
    """Ten minutes to 31 days."""
    name = f"projects/{broker.project}/subscriptions/{unique('sub')}"
    limits = [(599, 0), (31 * 86_400 + 1, 0)]
    if broker.features.limits:
        limits += [(599, 999_999_999), (31 * 86_400, 1)]
    for seconds, nanos in limits:
        retention = duration_pb2.Duration(seconds=seconds, nanos=nanos)
        fields = {"name": name, "topic": topic, "message_retention_duration": retention}
        assert code_of(broker, "CreateSubscription", **fields) == INVALID


def test_nothing_is_left_in_a_shared_project(our_emulator: str) -> None:
    """This suite deletes what it has created, where the project is somebody's."""
    shared = replace(OURS, is_shared=True)
    broker = Broker(shared, grpc.insecure_channel(our_emulator), unique("project"))
    topic = broker.topic()
    subscription = broker.subscription(topic)
    parent = f"projects/{broker.project}"
    broker.call("CreateSnapshot", name=f"{parent}/snapshots/kept", subscription=subscription)
    schema = {"type_": 2, "definition": '"string"'}
    broker.call("CreateSchema", parent=parent, schema_id="kept", schema=schema)

    broker.close()

    again = Broker(OURS, grpc.insecure_channel(our_emulator), broker.project)
    assert not again.call("ListTopics", project=parent).topics
    assert not again.call("ListSubscriptions", project=parent).subscriptions
    assert not again.call("ListSnapshots", project=parent).snapshots
    assert not again.call("ListSchemas", parent=parent).schemas
    again.close()


def test_every_answer_names_our_server(broker: Broker, topic: str) -> None:
    """Initial metadata tells our server from others, on success and on failure."""
    broker.needs("is_ours", "ours only")
    broker.needs("raw", "gRPC's metadata")
    get: Any = broker.channel.unary_unary(
        "/google.pubsub.v1.Publisher/GetTopic",
        request_serializer=t.GetTopicRequest.pb().SerializeToString,
        response_deserializer=None,
    )

    for name in (topic, f"{topic}-missing"):
        call = get.future(t.GetTopicRequest.pb()(topic=name), timeout=PATIENCE)
        assert "convotic-emulator" in dict(call.initial_metadata())
