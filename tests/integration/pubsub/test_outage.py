"""A broker that becomes unavailable: a pause, no lost message, no stuck consumer."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from convotic_emulator import daemon
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.ports import emulator_on_own_port
from tests.support.pubsub import make_spec, pull, unique
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from convotic_emulator.testing import EmulatorThread
    from tests.integration.pubsub.conftest import MakeHarness


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    """Return the log's lines about an action."""
    return [
        record.getMessage() for record in caplog.records if getattr(record, "action", "") == action
    ]


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


def test_a_silent_server_on_the_old_port_is_left_alone(
    data_dir: Path, harness: MakeHarness
) -> None:
    """It takes connections and answers nothing: it costs one attempt, publishing and consuming."""
    may_look = threading.Event()
    may_look.set()

    def find() -> str:
        """Return where the emulator is; a new one takes the old one's port if that is free."""
        may_look.wait(PATIENCE)
        return daemon.ensure_running(data_dir)

    with emulator_on_own_port(data_dir) as port:
        one = harness(find, make_spec())
        one.on_message = lambda message: message.ack()
        one.consume()
        one.publish(0)
        one.drain_until(lambda: one.bodies == [0])
        status = daemon.status(data_dir)
        assert status is not None
        may_look.clear()
        os.kill(status["pid"], signal.SIGKILL)
    with socket.create_server(("127.0.0.1", port), backlog=100) as silent:
        may_look.set()
        one.publish(1)
        one.drain_until(lambda: one.bodies == [0, 1])
        connections = count_connections(silent)

    assert connections <= 15  # six channels, of which a slow machine tries some twice


def count_connections(server: socket.socket) -> int:
    """Return how many clients have connected; nobody has been served."""
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


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

    assert len(said(caplog, "pull_failed")) <= 1


def test_an_outage_is_one_line_for_all_queues(
    data_dir: Path, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """And so is its end, however many queues there are."""
    caplog.set_level(logging.INFO)
    specs = [make_spec() for _ in range(5)]
    queues = {spec.queue: spec for spec in specs}
    find = partial(daemon.ensure_running, data_dir)
    consumers = [harness(find, spec, queues=queues) for spec in specs]
    for each in consumers:
        each.on_message = lambda message: message.ack()
        each.consume()
        each.publish("before")
        each.drain_until(lambda: "before" in each.bodies)  # noqa: B023 - called before the next
    status = daemon.status(data_dir)
    assert status is not None

    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: said(caplog, "pull_failed"))
    for each in consumers:
        each.publish("after")
        each.drain_until(lambda: "after" in each.bodies, seconds=20)  # noqa: B023 - as above

    (line,) = said(caplog, "pull_failed")
    assert line.endswith("; queues wait until it answers again")
    assert said(caplog, "pull_recovered") == ["Pub/Sub answers again"]


def test_a_publish_that_takes_long_says_why(
    pubsub_emulator: EmulatorThread, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for any number of messages; they are published in the end."""
    one = harness(pubsub_emulator.address, make_spec())
    one.publish("before")
    pubsub_emulator.faults.unavailable(1000, method="Publish")
    futures = [one.session.publish(OutgoingMessage(one.spec.topic, b"1", {})) for _ in range(20)]
    wait_until(lambda: said(caplog, "publish_retried"))
    pubsub_emulator.faults.clear()

    assert all(future.result(PATIENCE) for future in futures)
    (line,) = said(caplog, "publish_retried")
    assert line.endswith("; publishing is tried again for up to 60 s")


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

    assert took < 45  # one attempt of 5 s; it was 56 s


def test_a_publish_with_retry_outlasts_an_outage(data_dir: Path, harness: MakeHarness) -> None:
    """Celery's default: the caller waits for the broker's return, and the message is stored."""
    address = daemon.ensure_running(data_dir)
    one = harness(lambda: daemon.ensure_running(data_dir), make_spec(), prefix=unique("p") + ".")
    producer = one.connection.Producer()
    producer.publish({"n": 0}, routing_key="jobs")
    status = daemon.status(data_dir)
    assert status is not None

    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.status(data_dir) is None)  # else it may keep one more copy
    producer.publish({"n": 1}, routing_key="jobs", retry=True)

    assert address
    assert one.connection.default_channel.queue_purge("jobs") == 2
