"""Errors of the service: logged once, with resource and remedy; over when their cause is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kombu import Connection

from convotic_pubsub.errors import AccessDenied, BrokerUnavailable, OptionError, PublishError
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.faulty import FaultyServer, run_faulty_server
from tests.support.pubsub import make_spec
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness

DENIED = (grpc.StatusCode.PERMISSION_DENIED, "User not authorized to perform this action.")


@pytest.fixture
def faulty(our_emulator: str) -> Iterator[FaultyServer]:
    """A server that refuses when told."""
    with run_faulty_server(our_emulator) as server:
        yield server


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[logging.LogRecord]:
    """Return the log records of one action."""
    return [record for record in caplog.records if getattr(record, "action", "") == action]


@pytest.mark.parametrize(
    "fault",
    [DENIED, (grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")],
    ids=["denied", "expired credentials"],
)
def test_a_refused_pull_is_said_once_and_ends_by_itself(
    faulty: FaultyServer,
    harness: MakeHarness,
    caplog: pytest.LogCaptureFixture,
    fault: tuple[grpc.StatusCode, str],
) -> None:
    """One ERROR with subscription, cause and remedy; other queues go on; then it pulls again."""
    caplog.set_level(logging.INFO, "convotic_pubsub")
    refused, other = make_spec(), make_spec()
    queues = {refused.queue: refused, other.queue: other}
    one = harness(faulty.address, refused, queues=queues)
    two = harness(faulty.address, other, queues=queues)
    for each in (one, two):
        each.on_message = lambda message: message.ack()
    one.publish(1)
    faulty.faults["Pull"] = fault
    one.consume()
    one.drain_until(lambda: faulty.calls["Pull"] >= 4, seconds=10)
    (record,) = said(caplog, "pull_failed")
    assert record.levelno == logging.ERROR
    assert f"/subscriptions/{refused.subscription}" in record.getMessage()
    assert fault[1] in record.getMessage()
    assert "roles/pubsub.subscriber" in record.getMessage()

    faulty.faults.clear()
    one.drain_until(lambda: one.bodies == [1], seconds=10)
    two.consume()
    two.publish(2)
    two.drain_until(lambda: two.bodies == [2])

    assert len(said(caplog, "pull_recovered")) == 1


@pytest.mark.crash(
    11, "the broker or the store is unavailable for a while", lost="nothing", repeated="perhaps"
)
def test_a_quota_and_an_unavailable_service_are_waited_for(
    faulty: FaultyServer, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Transient: at most one WARNING, no ERROR, and nothing is lost."""
    one = harness(faulty.address, make_spec())
    one.on_message = lambda message: message.ack()
    faulty.faults["Pull"] = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.")
    one.consume()
    one.publish(1)
    one.drain_until(lambda: faulty.calls["Pull"] >= 3, seconds=10)
    faulty.faults["Pull"] = (grpc.StatusCode.UNAVAILABLE, "The service is unavailable.")
    calls = faulty.calls["Pull"]
    one.drain_until(lambda: faulty.calls["Pull"] >= calls + 1, seconds=10)

    faulty.faults.clear()
    one.drain_until(lambda: one.bodies == [1], seconds=15)

    assert len(said(caplog, "pull_failed")) <= 1
    assert not [
        record
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith("convotic_pubsub")
    ]


def test_a_refused_acknowledgement_is_said_and_delivered_again(
    faulty: FaultyServer, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has subscription, cause and remedy, once; state is dropped, it is delivered again."""
    one = harness(faulty.address, make_spec())
    one.on_message = lambda message: message.ack()
    faulty.faults["Acknowledge"] = DENIED
    one.consume()
    for number in range(1, 4):
        one.publish(number)
        one.drain_until(lambda number=number: number in one.bodies)  # type: ignore[misc]
        one.session.flush()

    assert not one.session.outstanding
    (record,) = said(caplog, "ack_failed")
    assert one.spec.subscription in record.getMessage()
    assert "roles/pubsub.subscriber" in record.getMessage()

    faulty.faults.clear()
    one.publish(4)
    one.drain_until(lambda: 4 in one.bodies)
    one.session.flush()
    faulty.faults["Acknowledge"] = DENIED
    one.publish(5)
    one.drain_until(lambda: 5 in one.bodies)
    one.session.flush()
    assert len(said(caplog, "ack_failed")) == 2  # it was over, and began again


def test_a_refused_publish_raises(faulty: FaultyServer, harness: MakeHarness) -> None:
    """The publisher hears of it, with topic and cause."""
    one = harness(faulty.address, make_spec())
    faulty.faults["Publish"] = DENIED

    with pytest.raises(PublishError, match=f"{one.spec.topic}.*not authorized"):
        one.publish(1)


def test_a_publish_survives_an_unavailable_service(
    faulty: FaultyServer, harness: MakeHarness
) -> None:
    """It is retried until it is confirmed."""
    one = harness(faulty.address, make_spec())
    faulty.faults["Publish"] = (grpc.StatusCode.UNAVAILABLE, "gone for a moment")
    future = one.session.publish(OutgoingMessage(one.spec.topic, b"1"))
    one.drain_until(lambda: faulty.calls["Publish"] >= 2)

    faulty.faults.clear()

    assert future.result(PATIENCE)


def test_a_refused_creation_names_resource_and_role(
    faulty: FaultyServer, harness: MakeHarness
) -> None:
    """Declaring a queue without the right to create it."""
    faulty.faults["CreateTopic"] = DENIED

    with pytest.raises(AccessDenied, match=r"/topics/.*roles/pubsub\.editor"):
        harness(faulty.address, make_spec())


def test_nobody_there_is_said_with_the_address(harness: MakeHarness) -> None:
    """Connecting to where nothing listens: kombu's retries see a recoverable error."""
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        harness("127.0.0.1:1", make_spec())


def test_a_wrong_option_ends_the_attempt_at_once() -> None:
    """kombu (and so a worker) tries again after every other error, here for nothing."""
    tried: list[object] = []
    connection: Any = Connection("pubsub://p", transport_options={"labels": {"Team": "shop"}})

    with pytest.raises(OptionError, match="labels="):
        connection.ensure_connection(lambda *attempt: tried.append(attempt), max_retries=2)

    assert tried == []
