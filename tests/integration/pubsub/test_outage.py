"""A broker that goes away: a pause, no lost message, no stuck consumer."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from convotic_emulator import daemon
from tests.support.pubsub import make_spec, pull, unique
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness


@pytest.mark.crash(
    9,
    "the emulator, by kill -9",
    lost="no confirmed publish, no confirmed acknowledgement",
    repeated="what was being acknowledged",
)
def test_an_emulator_that_is_killed_costs_nothing(data_dir: Path, harness: MakeHarness) -> None:
    """kill -9 in the middle: what was confirmed arrives, what runs is acknowledged afterwards."""
    one = harness(lambda: daemon.ensure_running(data_dir), make_spec(concurrency=5))
    held: list[Any] = []

    def handle(message: Any) -> None:
        if not held:
            held.append(message)
        else:
            message.ack()

    one.on_message = handle
    one.consume()
    one.publish(*range(50))
    one.drain_until(lambda: len(one.messages) >= 20)
    status = daemon.status(data_dir)
    assert status is not None

    os.kill(status["pid"], signal.SIGKILL)
    one.publish(*range(50, 60))
    one.drain_until(lambda: set(one.bodies) == set(range(60)), seconds=40)
    held[0].ack()
    one.session.flush()

    wait_until(lambda: not one.session.outstanding)
    assert not list(pull(one.session, one.spec.subscription))


def test_a_deleted_subscription_is_made_again_and_others_go_on(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of one subscription stay its own: it reconnects, and says so once."""
    gone, other = make_spec(), make_spec()
    one = harness(broker, gone, queues={gone.queue: gone, other.queue: other})
    two = harness(broker, other, queues={gone.queue: gone, other.queue: other})
    for each in (one, two):
        each.on_message = lambda message: message.ack()
        each.consume()
    one.publish(1)
    one.drain_until(lambda: len(one.messages) == 1)

    one.session.resources.delete(gone, with_topic=False)
    two.publish(2)
    two.drain_until(lambda: len(two.messages) == 1)
    wait_until(lambda: one.session.resources.exists(gone))
    one.publish(3)
    one.drain_until(lambda: 3 in one.bodies, seconds=10)

    said = [each for each in caplog.records if getattr(each, "action", "") == "pull_failed"]
    assert len(said) <= 1


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_publish_without_retry_is_one_attempt(
    data_dir: Path, harness: MakeHarness, fault: signal.Signals
) -> None:
    """``apply_async(retry=False)`` while the broker is down or frozen: an error, and soon."""
    daemon.ensure_running(data_dir)
    status = daemon.status(data_dir)
    assert status is not None
    one = harness(status["address"], make_spec(), prefix=unique("p") + ".")
    producer = one.connection.Producer()
    producer.publish({"n": 0}, routing_key="jobs")

    os.kill(status["pid"], fault)
    started = one.session.clock()
    try:
        with (
            pytest.raises(OperationalError),
            one.connection._reraise_as_library_errors(),  # as Celery does
        ):
            producer.publish({"n": 1}, routing_key="jobs", retry=False)
        took = one.session.clock() - started
    finally:
        if fault is signal.SIGSTOP:
            os.kill(status["pid"], signal.SIGCONT)

    assert took < 25  # one attempt of 5 s; it was 56 s


def test_a_publish_with_retry_outlasts_an_outage(data_dir: Path, harness: MakeHarness) -> None:
    """Celery's default: the caller waits for the broker's return, and the message is stored."""
    address = daemon.ensure_running(data_dir)
    one = harness(lambda: daemon.ensure_running(data_dir), make_spec(), prefix=unique("p") + ".")
    producer = one.connection.Producer()
    producer.publish({"n": 0}, routing_key="jobs")
    status = daemon.status(data_dir)
    assert status is not None

    os.kill(status["pid"], signal.SIGKILL)
    producer.publish({"n": 1}, routing_key="jobs", retry=True)

    assert address
    assert one.connection.default_channel.queue_purge("jobs") == 2
