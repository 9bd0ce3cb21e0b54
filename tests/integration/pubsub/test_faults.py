"""The transport when Pub/Sub misbehaves: faults on demand, on a server of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.names import subscription_path
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import DeadLetter
from tests.support.pubsub import Harness, PlainPolicy, make_spec
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from convotic_emulator.testing import EmulatorThread
    from convotic_pubsub.outgoing import Sending
    from tests.integration.pubsub.conftest import MakeHarness


def path_of(one: Harness) -> str:
    return subscription_path(one.session.options.project, one.spec.subscription)


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if getattr(r, "action", "") == action]


def consuming(harness: MakeHarness, emulator: EmulatorThread, **changes: Any) -> Harness:
    """Return a harness that acknowledges all it gets, and has got one message."""
    one = harness(emulator.address, make_spec(**changes))
    one.on_message = lambda message: message.ack()
    one.consume()
    one.publish("first")
    one.drain_until(lambda: one.bodies == ["first"])
    return one


def test_permission_denied_is_said_once_and_recovers_by_itself(
    pubsub_emulator: EmulatorThread, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with the resource's name, however often it is tried; nothing to restart."""
    caplog.set_level("INFO")
    one = consuming(harness, pubsub_emulator)

    pubsub_emulator.faults.deny(path_of(one))
    one.publish("later")
    one.drain_until(lambda: said(caplog, "pull_failed"))
    one.drain_for(0.5)  # two or three more attempts
    assert one.bodies == ["first"]
    pubsub_emulator.faults.allow(path_of(one))

    one.drain_until(lambda: one.bodies == ["first", "later"])
    [line] = said(caplog, "pull_failed")
    assert path_of(one) in line
    assert len(said(caplog, "pull_recovered")) == 1


def test_a_publish_outlives_some_unavailable_answers(
    pubsub_emulator: EmulatorThread, harness: MakeHarness
) -> None:
    """It is retried, and arrives once."""
    one = consuming(harness, pubsub_emulator)

    pubsub_emulator.faults.unavailable(3, method="Publish")
    one.publish("later")

    one.drain_until(lambda: one.bodies == ["first", "later"])


@pytest.mark.parametrize("sending", ["blocking", "directly"])
def test_one_that_is_sent_directly_outlives_them_too(
    pubsub_emulator: EmulatorThread, harness: MakeHarness, sending: Sending
) -> None:
    """It is handed to those that try again, and arrives once."""
    one = consuming(harness, pubsub_emulator)

    pubsub_emulator.faults.unavailable(3, method="Publish")
    assert one.session.publish(OutgoingMessage(one.spec.topic, b'"later"'), sending=sending).result(
        PATIENCE
    )

    one.drain_until(lambda: one.bodies == ["first", "later"])


def test_dropped_streams_are_opened_again(
    pubsub_emulator: EmulatorThread, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a line in the log: the service closes streams now and then."""
    one = consuming(harness, pubsub_emulator)

    assert pubsub_emulator.faults.drop_streams() == 1
    one.publish("later")

    one.drain_until(lambda: one.bodies == ["first", "later"])
    assert said(caplog, "pull_failed") == []


@pytest.mark.crash(
    4,
    "the worker, after the handler returned and before the acknowledgement is confirmed",
    lost="nothing",
    repeated="the whole run",
)
def test_a_message_whose_acknowledgement_was_lost_comes_again(
    pubsub_emulator: EmulatorThread, harness: MakeHarness
) -> None:
    """It was confirmed and forgotten; the redelivery is acknowledged again, and all is settled."""
    one = consuming(harness, pubsub_emulator)
    one.session.flush()

    pubsub_emulator.faults.lose_acks()
    one.publish("again")
    one.drain_until(lambda: "again" in one.bodies)
    one.session.flush()
    assert pubsub_emulator.count(path_of(one)) == 1
    pubsub_emulator.advance(601)

    one.drain_until(lambda: one.bodies.count("again") == 2)
    one.session.flush()
    assert pubsub_emulator.count(path_of(one)) == 0


@pytest.mark.crash(
    5,
    "the worker, between dead-letter publish and acknowledgement",
    lost="nothing",
    repeated="the dead letter",
)
def test_a_dead_letter_whose_message_was_not_acknowledged_comes_twice(
    pubsub_emulator: EmulatorThread, harness: MakeHarness
) -> None:
    """Rather than not at all: both are the same message's."""
    policy = PlainPolicy()
    policy.decisions[b'"bad"'] = DeadLetter({"convotic-dead-letter-reason": "invalid"})
    one = consuming(harness, pubsub_emulator, policy=policy)
    one.session.flush()

    pubsub_emulator.faults.lose_acks()
    one.publish("bad")
    one.drain_until(lambda: one.session.dead_lettered)
    one.session.flush()
    assert pubsub_emulator.count(path_of(one)) == 1
    pubsub_emulator.advance(601)

    one.drain_until(lambda: pubsub_emulator.count(path_of(one)) == 0)
    letters = [letter.message for letter in one.dead_letters()]
    assert [letter.data for letter in letters] == [b'"bad"', b'"bad"']
