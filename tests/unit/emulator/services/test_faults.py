"""The pytest plugin: a server for each test, its clock, and what goes wrong on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from convotic_emulator.testing import EmulatorThread
from tests.conformance.broker import OURS, Broker, bodies
from tests.support.waiting import PATIENCE, never, wait_until


@pytest.fixture
def broker(pubsub_emulator: EmulatorThread) -> Iterator[Broker]:
    opened = Broker(OURS, grpc.insecure_channel(pubsub_emulator.address), "p")
    yield opened
    opened.close()


@pytest.fixture
def topic(broker: Broker) -> str:
    return broker.topic("orders")


@pytest.fixture
def subscription(broker: Broker, topic: str) -> str:
    return broker.subscription(topic, "orders.sub")


def fails_with(code: grpc.StatusCode, call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code


def test_clients_find_the_server_and_the_plugin_is_light(pubsub_emulator: EmulatorThread) -> None:
    """By the environment; loading the plugin does not load gRPC."""
    assert os.environ["PUBSUB_EMULATOR_HOST"] == pubsub_emulator.address
    code = "import sys, convotic_emulator.testing; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_test_has_a_server_of_its_own(pubsub_emulator: EmulatorThread) -> None:
    """Two side by side share nothing."""
    with EmulatorThread() as other:
        one = Broker(OURS, grpc.insecure_channel(pubsub_emulator.address), "p")
        two = Broker(OURS, grpc.insecure_channel(other.address), "p")
        assert one.topic("same") == two.topic("same")
        one.close()
        two.close()


def test_time_moves_ahead_at_once(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Leases lapse, retention passes; what is due has happened when advance() returns."""
    broker.publish(topic, b"x")
    assert bodies(broker.pull(subscription)) == [b"x"]

    pubsub_emulator.advance(11)
    assert bodies(broker.pull_now(subscription)) == [b"x"]

    pubsub_emulator.advance(8 * 86_400)
    assert broker.pull_now(subscription) == []
    assert pubsub_emulator.count(subscription) == 0


def test_unavailable_for_some_calls(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Of one method, without any effect; then it works again."""
    pubsub_emulator.faults.unavailable(2, method="Publish")

    for _ in range(2):
        fails_with(grpc.StatusCode.UNAVAILABLE, lambda: broker.publish(topic, b"lost"))
    broker.publish(topic, b"kept")

    assert bodies(broker.pull(subscription)) == [b"kept"]


def test_permission_denied_on_one_resource(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Its calls and its open streams; others go on."""
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: stream.received)

    pubsub_emulator.faults.deny(subscription)

    stream.ended.wait(PATIENCE)
    assert stream.code is grpc.StatusCode.PERMISSION_DENIED
    fails_with(grpc.StatusCode.PERMISSION_DENIED, lambda: broker.pull_now(subscription))
    refused = broker.stream(subscription)
    refused.ended.wait(PATIENCE)
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    broker.publish(topic, b"y")

    pubsub_emulator.faults.allow(subscription)
    assert bodies(broker.pull_now(subscription)) == [b"y"]


def test_one_role_is_taken_away(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Only what needs it is refused."""
    pubsub_emulator.faults.deny(topic, "roles/pubsub.publisher")

    fails_with(grpc.StatusCode.PERMISSION_DENIED, lambda: broker.publish(topic, b"x"))

    pubsub_emulator.faults.allow(topic)
    broker.publish(topic, b"x")
    assert bodies(broker.pull(subscription)) == [b"x"]


def test_nothing_but_some_roles_is_granted(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """On one resource, or on the project for all that is in it; TestIamPermissions says so."""
    project = "/".join(topic.split("/")[:2])
    faults = pubsub_emulator.faults

    faults.grant_only({topic: ["roles/pubsub.publisher"]})
    broker.publish(topic, b"x")
    fails_with(grpc.StatusCode.PERMISSION_DENIED, lambda: broker.pull_now(subscription))
    assert faults.is_granted("pubsub.topics.publish", topic)
    assert not faults.is_granted("pubsub.subscriptions.consume", subscription)

    faults.grant_only({project: ["pubsub.subscriptions.consume"]})
    fails_with(grpc.StatusCode.PERMISSION_DENIED, lambda: broker.publish(topic, b"y"))
    assert bodies(broker.pull_now(subscription)) == [b"x"]

    faults.grant_only(None)
    broker.publish(topic, b"y")


def test_dropped_streams_keep_their_leases(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """As when a connection breaks: UNAVAILABLE, and the ack id still works."""
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: stream.received)

    assert pubsub_emulator.faults.drop_streams() == 1

    stream.ended.wait(PATIENCE)
    assert stream.code is grpc.StatusCode.UNAVAILABLE
    assert broker.pull_now(subscription) == []
    broker.acknowledge(subscription, stream.received)
    assert pubsub_emulator.count(subscription) == 0


def test_lost_acknowledgements_are_confirmed(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Unary ones and those of streams; the messages are delivered again."""
    broker.publish(topic, b"x")
    pubsub_emulator.faults.lose_acks(2)

    broker.acknowledge(subscription, broker.pull(subscription))
    pubsub_emulator.advance(11)
    stream = broker.stream(subscription)
    wait_until(lambda: stream.received)
    stream.acknowledge(stream.received)
    stream.half_close()
    stream.ended.wait(PATIENCE)
    assert stream.code is grpc.StatusCode.OK
    pubsub_emulator.advance(11)

    assert pubsub_emulator.count(subscription) == 1
    broker.acknowledge(subscription, broker.pull_now(subscription))
    assert pubsub_emulator.count(subscription) == 0


def test_exactly_once_never_confirms_a_lost_acknowledgement(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str
) -> None:
    """The service would not; the client hears UNAVAILABLE."""
    subscription = broker.subscription(topic, enable_exactly_once_delivery=True)
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    pubsub_emulator.faults.lose_acks()

    fails_with(grpc.StatusCode.UNAVAILABLE, lambda: broker.acknowledge(subscription, received))

    broker.acknowledge(subscription, received)


def test_a_keepalive_is_answered(broker: Broker, subscription: str) -> None:
    """With an empty response, where the first request asks for it by its protocol_version."""
    current = broker.stream(subscription, protocol_version=1)
    older = broker.stream(subscription)

    current.send()
    older.send()

    wait_until(lambda: current.responses)
    assert not current.responses[0].received_messages
    assert not older.responses
    current.send()
    wait_until(lambda: len(current.responses) == 2)


def test_a_keepalive_is_answered_while_messages_wait_for_acknowledgement(
    broker: Broker, topic: str, subscription: str
) -> None:
    """A stream at its flow control's limit is alive too."""
    stream = broker.stream(subscription, protocol_version=1, max_outstanding_messages=1)
    broker.publish(topic, b"1", b"2")
    wait_until(lambda: len(stream.received) == 1)

    stream.send()

    wait_until(lambda: len(stream.responses) == 2)
    assert len(stream.received) == 1
    stream.acknowledge(stream.received)
    wait_until(lambda: len(stream.received) == 2)


def test_a_silent_stream(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """It stays open and sends nothing; another one gets the message when its lease has lapsed."""
    stream = broker.stream(subscription, protocol_version=1)
    stream.send()
    wait_until(lambda: stream.responses)

    assert pubsub_emulator.faults.silence_streams(subscription) == 1
    broker.publish(topic, b"x")
    stream.send()
    never(lambda: len(stream.responses) > 1 or stream.ended.is_set(), for_=0.3)

    other = broker.stream(subscription)
    pubsub_emulator.advance(11)
    wait_until(lambda: bodies(other.received) == [b"x"])


def test_withheld_keepalives(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Messages are delivered, keepalives are not answered."""
    pubsub_emulator.faults.withhold_keepalive()
    stream = broker.stream(subscription, protocol_version=1)
    stream.send()
    broker.publish(topic, b"x")

    wait_until(lambda: stream.received)
    assert len(stream.responses) == 1


def test_streams_with_a_limited_life(
    pubsub_emulator: EmulatorThread, broker: Broker, subscription: str
) -> None:
    """Each ends with UNAVAILABLE when its time is up."""
    pubsub_emulator.faults.limit_streams(0.2)
    short = broker.stream(subscription)
    wait_until(short.ended.is_set)
    pubsub_emulator.faults.limit_streams(None)
    long = broker.stream(subscription)

    assert short.code is grpc.StatusCode.UNAVAILABLE
    never(long.ended.is_set, for_=0.3)


def test_goaway(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Open streams go on; new calls connect again, and none fails."""
    stream = broker.stream(subscription)
    broker.publish(topic, b"before")
    wait_until(lambda: stream.received)
    grpc_server: Any = pubsub_emulator.server._server
    [old] = list(grpc_server._connections)

    pubsub_emulator.faults.goaway()
    wait_until(lambda: old.http2.is_leaving)
    broker.publish(topic, b"after")

    wait_until(lambda: bodies(stream.received) == [b"before", b"after"])
    assert len(grpc_server._connections) == 2
    stream.cancel()
    wait_until(lambda: old not in grpc_server._connections)


@pytest.mark.parametrize("way", ["pull", "stream"])
def test_duplicates(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str, way: str
) -> None:
    """The same message twice, under two ack ids, before the first is acknowledged."""
    pubsub_emulator.faults.duplicate()
    broker.publish(topic, b"x")

    if way == "pull":
        received = broker.pull_all(subscription, 2)
    else:
        stream = broker.stream(subscription)
        wait_until(lambda: len(stream.received) == 2)
        received = stream.received

    first, second = received
    assert first.message.message_id == second.message.message_id
    assert first.ack_id != second.ack_id
    broker.acknowledge(subscription, [first])
    assert pubsub_emulator.count(subscription) == 1
    broker.acknowledge(subscription, [second])
    assert pubsub_emulator.count(subscription) == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_delays(pubsub_emulator: EmulatorThread, broker: Broker, topic: str, ordered: bool) -> None:
    """A late message is passed by others, but by none of its ordering key."""
    subscription = broker.subscription(topic, enable_message_ordering=ordered)
    key = {"ordering_key": "k"} if ordered else {}
    pubsub_emulator.faults.delay(60)
    broker.publish(topic, b"late", **key)
    broker.publish(topic, b"next", **key)
    broker.publish(topic, b"other")

    prompt = bodies(broker.pull_now(subscription))
    assert prompt == ([b"other"] if ordered else [b"next", b"other"])
    pubsub_emulator.advance(61)

    got = [m.message.data for m in broker.pull_all(subscription, 1) if m.message.data != b"other"]
    assert got[0] == b"late" if ordered else b"late" in got


def test_clear_ends_all_faults(
    pubsub_emulator: EmulatorThread, broker: Broker, topic: str, subscription: str
) -> None:
    """Whatever was asked for and has not happened yet."""
    faults = pubsub_emulator.faults
    faults.unavailable(5)
    faults.deny(topic)
    faults.lose_acks()
    faults.duplicate()
    faults.delay(60)

    faults.clear()

    broker.publish(topic, b"x")
    broker.acknowledge(subscription, broker.pull(subscription))
    assert pubsub_emulator.count(subscription) == 0
