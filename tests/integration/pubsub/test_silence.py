"""Streams and connections that are open and silent: noticed, replaced, and nothing is lost."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.publish import publisher
from tests.integration.pubsub.conftest import MakeHarness
from tests.support.proxy import run_proxy
from tests.support.pubsub import make_spec
from tests.support.waiting import PATIENCE

#: How long a silent stream may go unnoticed: it was 85 to 90 s.
NOTICED_SECONDS = 70.0


def test_a_half_open_connection_is_replaced_and_nothing_counts_as_lost(
    our_emulator: str, harness: MakeHarness
) -> None:
    """Open connections go silent, new ones work: what was sent into the void is delivered again."""
    with run_proxy(our_emulator) as proxy:
        one = harness(proxy.address, make_spec(concurrency=1, ack_deadline_seconds=10))
        direct = harness(our_emulator, one.spec)
        one.on_message = lambda message: message.ack()
        one.consume()
        direct.publish("before")
        one.drain_until(lambda: one.bodies == ["before"])
        # The first heartbeat's answer has shown that this server answers.
        one.drain_until(lambda: one.session.broker.answers_heartbeats, seconds=40)

        proxy.silence()
        silent_at = time.monotonic()
        direct.publish(*range(3))
        old = one.session.broker.channels._pulls[0]
        one.drain_until(lambda: old not in one.session.broker.channels._pulls, seconds=45)
        assert time.monotonic() - silent_at < NOTICED_SECONDS
        # Until the server, too, ends the old stream (after 60 s), it may send messages there.
        one.drain_until(lambda: {0, 1, 2} <= {*one.bodies}, seconds=60)

        assert list(direct.dead_letters()) == []
        # Acknowledged over a connection that works, copies of meanwhile included.
        one.drain_until(lambda: not one.session.outstanding, seconds=30)


def test_a_black_hole_is_noticed_and_left_soon_after_its_end(
    our_emulator: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log within 45 s; within 10 s of its end messages arrive."""
    with run_proxy(our_emulator) as proxy:
        one = harness(proxy.address, make_spec(concurrency=1))
        direct = harness(our_emulator, one.spec)
        one.on_message = lambda message: message.ack()
        one.consume()
        direct.publish("before")
        one.drain_until(lambda: one.bodies == ["before"])
        one.drain_until(lambda: one.session.broker.answers_heartbeats, seconds=40)

        proxy.pause()
        one.drain_until(
            lambda: "pull_failed" in [getattr(each, "action", "") for each in caplog.records],
            seconds=NOTICED_SECONDS,
        )
        one.drain_for(10)
        direct.publish("after")
        proxy.resume()
        one.drain_until(lambda: "after" in one.bodies, seconds=10)


@pytest.mark.parametrize("sending", ["batched", "blocking", "directly"])
def test_a_publish_into_the_void_is_repeated_on_another_connection(
    our_emulator: str,
    harness: MakeHarness,
    sending: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Open connections go silent: one request's time is lost, not the minute until gRPC notices."""
    monkeypatch.setattr(publisher, "_REQUEST_SECONDS", 1.0)
    with run_proxy(our_emulator) as proxy:
        one = harness(proxy.address, make_spec())
        message = OutgoingMessage(one.spec.topic, b"1", {})
        one.session.publish(message, sending=sending).result(PATIENCE)

        proxy.silence()
        one.session.publish(message, sending=sending).result(PATIENCE)
        # And what comes after it finds a connection that works.
        one.session.publish(message, sending=sending).result(PATIENCE)


def test_an_idle_stream_is_not_replaced(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where no heartbeat is answered (Google's emulator 0.8.20); a message is there soon."""
    caplog.set_level(logging.INFO)
    with run_proxy(broker) as proxy:
        one = harness(proxy.address, make_spec(concurrency=1), pull_mode="stream")
        direct = harness(broker, one.spec)
        one.consume()
        one.drain_for(5)
        connections = proxy.connections

        one.drain_for(60)
        direct.publish("now")
        one.drain_until(lambda: one.bodies == ["now"])

        assert proxy.connections == connections
        assert [each for each in caplog.records if hasattr(each, "action")] == []
