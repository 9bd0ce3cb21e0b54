"""``provision``: create makes what is missing, verify tells what differs, off asks nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.errors import SubscriptionNotFound, TopicNotFound
from tests.support.faulty import run_faulty_server
from tests.support.pubsub import make_spec, unique

if TYPE_CHECKING:
    from convotic_pubsub.session import Session
    from tests.integration.pubsub.conftest import MakeHarness


def get_topic(session: Session, path: str) -> Any:
    """Return a topic as the server has it."""

    async def call() -> Any:
        return await session.broker.rpc.get_topic(path)

    return session.call(call())


def test_verify_creates_nothing(our_emulator: str, harness: MakeHarness) -> None:
    """A missing topic is an error that names it, and stays missing."""
    with run_faulty_server(our_emulator) as server:
        spec = make_spec()
        with pytest.raises(TopicNotFound, match=f"topics/{spec.topic}"):
            harness(server.address, spec, provision="verify")

        assert not server.calls["CreateTopic"]
        assert not server.calls["CreateSubscription"]


def test_verify_misses_a_subscription(broker: str, harness: MakeHarness) -> None:
    """Topics alone are not enough."""
    spec = make_spec()
    harness(broker, spec)
    other = replace(spec, queue=f"{spec.topic}.two", subscription=f"{spec.topic}.two")

    with pytest.raises(SubscriptionNotFound, match=other.subscription):
        harness(broker, other, provision="verify")


def test_verify_tells_the_exact_difference(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """What is, what was wanted, and nothing of what is equal."""
    spec = make_spec(ack_deadline_seconds=30)
    harness(broker, spec)

    harness(broker, replace(spec, ack_deadline_seconds=60), provision="verify")

    (record,) = [each for each in caplog.records if hasattr(each, "drift")]
    assert record.drift == ["ack_deadline_seconds is 30, wanted 60"]


def test_what_is_as_it_was_asked_for_is_no_drift(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """All settings of a queue, and a dead-letter retention that Google's emulator cuts."""
    spec = make_spec(
        expiration_seconds=86_400, enable_message_ordering=True, labels={"convotic": "queue"}
    )
    for provision in ("create", "verify"):
        harness(broker, spec, provision=provision, labels={"team": "shop"})

    assert [each for each in caplog.records if hasattr(each, "drift")] == []


def test_verify_tells_each_setting_of_subscription_and_topic(
    our_emulator: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention, expiration, dead letters, labels, regions: none is left out."""
    spec = make_spec(labels={"team": "shop"})
    harness(our_emulator, spec, message_storage_regions=["europe-west1"])
    changed = replace(
        spec,
        message_retention_seconds=3600,
        expiration_seconds=86_400,
        enable_exactly_once_delivery=True,
        max_delivery_attempts=20,
        filter='attributes:"kind"',
        labels={"team": "books"},
    )

    harness(our_emulator, changed, provision="verify", message_storage_regions=["europe-west4"])

    by_name = {
        (each.__dict__["action"], each.getMessage().split()[1].rsplit("/", 1)[1]): each
        for each in caplog.records
        if hasattr(each, "drift")
    }
    assert by_name["subscription_drift", spec.subscription].__dict__["drift"] == [
        'filter is unset, wanted attributes:"kind"',
        "enable_exactly_once_delivery is False, wanted True",
        "max_delivery_attempts is 10, wanted 20",
        "message_retention_seconds is 604800, wanted 3600",
        "expiration_seconds is never, wanted 86400",
        "labels.team is shop, wanted books",
    ]
    assert by_name["topic_drift", spec.topic].__dict__["drift"] == [
        "message_storage_regions is europe-west1, wanted europe-west4",
        "labels.team is shop, wanted books",
    ]


def test_off_asks_nothing(our_emulator: str, harness: MakeHarness) -> None:
    """No administration call at all: the least rights do."""
    with run_faulty_server(our_emulator) as server:
        spec = make_spec()
        harness(our_emulator, spec)
        one = harness(server.address, spec, provision="off")
        one.on_message = lambda message: message.ack()
        one.consume()
        one.publish(1)
        one.drain_until(lambda: one.bodies == [1])
        one.session.flush()

        # A lease is renewed where a message waits for long.
        asked = {name for name, count in server.calls.items() if count} - {
            *("ListTopics", "ModifyAckDeadline")
        }
        assert asked == {"Publish", "Pull", "Acknowledge"}


def test_resources_of_another_project_are_named_by_their_paths(
    our_emulator: str, harness: MakeHarness
) -> None:
    """Topic and subscription in a project that is not the URL's."""
    project, name = unique("project"), unique("orders")
    spec = make_spec(
        topic=f"projects/{project}/topics/{name}",
        subscription=f"projects/{project}/subscriptions/{name}.worker",
        dead_letter_topic=f"projects/{project}/topics/{name}.dead-letter",
    )
    one = harness(our_emulator, spec)
    one.on_message = lambda message: message.reject(requeue=message.body == b"1")
    one.consume()

    one.publish(2)
    one.drain_until(lambda: one.session.dead_lettered[spec.queue] == 1)

    assert get_topic(one.session, spec.topic).name == spec.topic
    assert one.session.resources.backlog_sizes([spec.subscription])


def test_labels_and_regions_reach_the_service(our_emulator: str, harness: MakeHarness) -> None:
    """Topics may be kept in a region, and be found by the deployment's labels."""
    one = harness(
        our_emulator,
        make_spec(),
        labels={"team": "shop"},
        message_storage_regions=["europe-west1"],
    )

    topic = get_topic(one.session, f"projects/test-project/topics/{one.spec.topic}")

    assert dict(topic.labels) == {"team": "shop"}
    assert list(topic.message_storage_policy.allowed_persistence_regions) == ["europe-west1"]
