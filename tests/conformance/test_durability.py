"""kill -9 under load: nothing confirmed is missing, no confirmed acknowledgement is back.

Attempts go on where they were, and confirmed snapshots have what they had.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2, timestamp_pb2

from convotic_emulator import daemon
from tests.conformance.broker import OURS, Broker, unique
from tests.support.waiting import PATIENCE, wait_until

#: How many times the server is killed; more by KILL_ITERATIONS (50 before a release).
ITERATIONS = int(os.environ.get("KILL_ITERATIONS", "5"))
#: Of deliveries; and how many snapshots are kept at a time.
FAILURE_RATE, SNAPSHOTS = 0.05, 3
#: The lease of a message whose pull was answered into the void by the kill.
LEASE_SECONDS = 10


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="convotic-kill-"))
    try:
        yield path
    finally:
        daemon.stop(path)
        shutil.rmtree(path)


@dataclass
class Snapshot:
    """A confirmed snapshot: what must be in it, and what must not."""

    name: str
    wanted: set[bytes]
    unwanted: set[bytes]


class Load:
    """A publisher, a consumer and a taker of snapshots that write down what was confirmed to them.

    A message is known by its data, which no other has. A request whose answer the kill swallowed
    was done wholly or not at all: the messages of a doubtful acknowledgement come back together or
    never, those of a doubtful publish arrive together or never.
    """

    def __init__(self, topic: str, subscription: str) -> None:
        self.topic = topic
        self.subscription = subscription
        self.published: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.received: set[bytes] = set()
        self.doubtful_publishes: list[set[bytes]] = []
        #: Each with those of its messages that came back since.
        self.doubtful_acks: list[tuple[set[bytes], set[bytes]]] = []
        self.violations: list[str] = []
        #: The least attempt that the next delivery of a message may have.
        self.least_attempt: dict[bytes, int] = {}
        #: Whatever was ever to be acknowledged, confirmed or not.
        self.tried: set[bytes] = set()
        #: The newest few.
        self.snapshots: list[Snapshot] = []
        self._snapshots_taken = 0
        self._has_nacked = False
        self._before = (0, 0)
        self.stopping = threading.Event()
        self._requests = itertools.count()
        self._unanswered: list[Sequence[Any]] = []

    def run(self, address: str) -> list[threading.Thread]:
        """Start all on a server."""
        self.stopping.clear()
        self._before = len(self.published), self._snapshots_taken
        threads = [
            threading.Thread(target=self._until_killed, args=(address, work))
            for work in (self._publish, self.consume, self._take_snapshot)
        ]
        for thread in threads:
            thread.start()
        return threads

    def is_under_way(self) -> bool:
        """Say whether on this server something of each kind was confirmed."""
        published, taken = self._before
        return (
            self._has_nacked
            and len(self.published) > published + 50
            and self._snapshots_taken > taken
        )

    def missing(self) -> set[bytes]:
        """Return what was confirmed and is neither acknowledged nor possibly so.

        Of a doubtful request of which a part has come, the rest is owed, too: the answer to the
        pull that brought it may have been lost by a kill.
        """
        owed = self.published.union(
            *(sent for sent in self.doubtful_publishes if sent & self.received)
        )
        doubtful = set[bytes]().union(*(sent for sent, back in self.doubtful_acks if not back))
        return owed - self.acknowledged - doubtful

    def torn(self) -> list[set[bytes]]:
        """Return requests that took effect in part."""
        groups = [(sent, sent & self.received) for sent in self.doubtful_publishes]
        groups += self.doubtful_acks
        return [sent ^ back for sent, back in groups if back and back != sent]

    def nack_doubtful(self, broker: Broker) -> None:
        """Have doubtfully acknowledged messages come back now, those that still exist."""
        for messages in self._unanswered:
            broker.modify(self.subscription, messages, 0)
        self._unanswered.clear()

    def consume(self, broker: Broker) -> int:
        """Pull and acknowledge once; return how many messages came."""
        messages = broker.pull_now(self.subscription, limit=1000)
        if not messages:
            return 0
        self._note(messages)
        failed: list[Any] = []
        done: list[Any] = []
        for message in messages:
            fails = random.random() < FAILURE_RATE and not self.stopping.is_set()
            (failed if fails else done).append(message)
        if failed:
            broker.modify(self.subscription, failed, 0)
            for message in failed:  # confirmed, so it counts
                self.least_attempt[message.message.data] += 1
            self._has_nacked = True
        if done:
            self._acknowledge(broker, done)
        return len(messages)

    def _note(self, messages: Sequence[Any]) -> None:
        bodies = {m.message.data for m in messages}
        self.violations += [body.decode() for body in bodies & self.acknowledged]
        self.received |= bodies
        for sent, back in self.doubtful_acks:
            back.update(bodies & sent)
        for message in messages:
            body, attempt = message.message.data, message.delivery_attempt
            if attempt < self.least_attempt.get(body, 1):
                self.violations.append(f"attempt {attempt} of {body.decode()}")
            self.least_attempt[body] = attempt

    def _acknowledge(self, broker: Broker, messages: Sequence[Any]) -> None:
        bodies = {m.message.data for m in messages}
        self.tried |= bodies
        try:
            broker.acknowledge(self.subscription, messages)
        except grpc.RpcError:
            self.doubtful_acks.append((bodies, set()))
            self._unanswered.append(messages)
            raise
        self.acknowledged |= bodies

    def _publish(self, broker: Broker) -> None:
        request = next(self._requests)
        bodies = [b"%d:%d " % (request, n) + b"x" * 200 for n in range(random.randint(1, 100))]
        try:
            broker.publish(self.topic, *bodies)
        except grpc.RpcError:
            self.doubtful_publishes.append(set(bodies))
            raise
        self.published.update(bodies)

    def _take_snapshot(self, broker: Broker) -> None:
        name = f"projects/p/snapshots/{unique('snapshot')}"
        published, acknowledged = set(self.published), set(self.acknowledged)
        broker.call("CreateSnapshot", name=name, subscription=self.subscription)
        self.snapshots.append(Snapshot(name, published - self.tried, acknowledged))
        self._snapshots_taken += 1
        while len(self.snapshots) > SNAPSHOTS:
            broker.call("DeleteSnapshot", snapshot=self.snapshots.pop(0).name)
        self.stopping.wait(0.1)

    def _until_killed(self, address: str, work: Callable[[Broker], object]) -> None:
        broker = Broker(OURS, grpc.insecure_channel(address), "p")
        with contextlib.suppress(grpc.RpcError):  # the kill
            while not self.stopping.is_set():
                work(broker)
        broker.close()


@pytest.mark.crash(
    9,
    "the emulator, by kill -9",
    lost="no confirmed publish, no confirmed acknowledgement",
    repeated="what was being acknowledged",
)
def test_nothing_confirmed_is_lost_by_kill_9(folder: Path) -> None:
    """At random points, under publishes and acknowledgements in flight."""
    address = daemon.ensure_running(folder)
    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    topic = broker.topic(unique("topic"))
    policy = {"dead_letter_topic": topic, "max_delivery_attempts": 100}  # so attempts are counted
    load = Load(topic, broker.subscription(topic, dead_letter_policy=policy))
    broker.close()

    for _ in range(ITERATIONS):
        threads = load.run(address)
        wait_until(load.is_under_way, what="some of each")  # a slow machine needs its time
        threading.Event().wait(random.uniform(0.0, 0.5))
        info = daemon.status(folder)
        assert info is not None
        os.kill(info["pid"], signal.SIGKILL)
        for thread in threads:
            thread.join(timeout=PATIENCE)
        wait_until(lambda: daemon.status(folder) is None)
        address = daemon.ensure_running(folder)
        broker = Broker(OURS, grpc.insecure_channel(address), "p")
        load.nack_doubtful(broker)
        broker.close()

    load.stopping.set()
    drained = Broker(OURS, grpc.insecure_channel(address), "p")
    wait_until(
        lambda: not load.consume(drained) and not load.missing(),
        timeout=LEASE_SECONDS * 3 + ITERATIONS,  # the backlog grows with them
        what="every confirmed message is delivered",
    )
    for snapshot in load.snapshots:
        kept = content_of(drained, topic, snapshot)
        assert not snapshot.wanted - kept
        assert not snapshot.unwanted & kept
    drained.close()
    assert load.snapshots
    assert max(load.least_attempt.values()) > 1
    assert load.torn() == []
    assert len(load.published) > 50 * ITERATIONS
    assert load.violations == []


def content_of(broker: Broker, topic: str, snapshot: Snapshot) -> set[bytes]:
    """Return what a new subscription gets from a snapshot."""
    subscription = broker.subscription(topic)
    broker.call("Seek", subscription=subscription, snapshot=snapshot.name, timeout=PATIENCE)
    content: set[bytes] = set()
    while messages := broker.pull_now(subscription, limit=1000):
        content |= {m.message.data for m in messages}
        broker.acknowledge(subscription, messages)
    return content


def test_a_seek_is_not_torn_by_kill_9(folder: Path) -> None:
    """Killed in the middle of acknowledging 50,000 messages: after the restart all of them are."""
    address = daemon.ensure_running(folder)
    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    topic = broker.topic()
    subscription = broker.subscription(topic)
    target = timestamp_pb2.Timestamp(seconds=4_000_000_000)

    def is_in_the_middle() -> threading.Thread | None:
        for _ in range(50):
            broker.publish(topic, *[b"x"] * 1000)
        asker = threading.Thread(target=_seek, args=(address, subscription, target))
        asker.start()
        left = wait_until(lambda: 50_000 - count(broker, subscription))
        if left < 50_000:
            return asker
        asker.join()  # it was faster than we have looked
        return None

    asker = wait_until(is_in_the_middle)
    assert asker is not None
    info = daemon.status(folder)
    assert info is not None
    os.kill(info["pid"], signal.SIGKILL)

    asker.join(timeout=PATIENCE)
    broker.close()
    wait_until(lambda: daemon.status(folder) is None)
    again = Broker(OURS, grpc.insecure_channel(daemon.ensure_running(folder)), "p")
    wait_until(lambda: count(again, subscription) == 0)
    assert again.pull_now(subscription) == []
    again.publish(topic, b"later")
    assert [m.message.data for m in again.pull(subscription)] == [b"later"]
    again.close()


def _seek(address: str, subscription: str, target: Any) -> None:
    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    with contextlib.suppress(grpc.RpcError):  # the kill
        broker.call("Seek", subscription=subscription, time=target)
    broker.close()


def count(broker: Broker, subscription: str) -> float:
    """Return how many messages are not acknowledged, by the emulator's own service."""
    call = broker.channel.unary_unary(
        "/convotic.emulator.v1.Status/CountMessages",
        request_serializer=struct_pb2.ListValue.SerializeToString,
        response_deserializer=struct_pb2.Struct.FromString,
    )
    request = struct_pb2.ListValue()
    request.append(subscription)
    answer: Any = call(request, timeout=PATIENCE)
    return float(answer[subscription]["messages"])
