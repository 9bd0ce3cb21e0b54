"""kill -9 under load: nothing confirmed is missing, no confirmed acknowledgement is back."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from convotic_emulator import daemon
from tests.conformance.broker import OURS, Broker, unique
from tests.support.waiting import wait_until

#: How many times the server is killed; more by KILL_ITERATIONS (50 before a release).
ITERATIONS = int(os.environ.get("KILL_ITERATIONS", "5"))
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


class Load:
    """One publisher and one consumer that write down what was confirmed to them."""

    def __init__(self, topic: str, subscription: str) -> None:
        self.topic = topic
        self.subscription = subscription
        self.published: set[str] = set()
        self.acknowledged: set[str] = set()
        #: Acknowledgements that were sent; the server may have done what it could not confirm.
        self.attempted: set[str] = set()
        self.violations: list[str] = []
        self.stopping = threading.Event()

    def run(self, address: str) -> list[threading.Thread]:
        """Start both on a server."""
        self.stopping.clear()
        threads = [
            threading.Thread(target=self._until_killed, args=(address, work))
            for work in (self._publish, self._consume)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _until_killed(self, address: str, work: object) -> None:
        broker = Broker(OURS, grpc.insecure_channel(address), "p")
        assert callable(work)
        with contextlib.suppress(grpc.RpcError):  # the kill
            while not self.stopping.is_set():
                work(broker)
        broker.close()

    def _publish(self, broker: Broker) -> None:
        count = random.randint(1, 100)
        self.published.update(broker.publish(self.topic, *[b"x" * 200] * count))

    def has_consumed_all(self, broker: Broker) -> bool:
        """Consume once more; say whether all that was confirmed has arrived."""
        self._consume(broker)
        return self.published <= self.attempted

    def _consume(self, broker: Broker) -> None:
        received = broker.pull_now(self.subscription, limit=1000)
        identifiers = {m.message.message_id for m in received}
        self.violations += identifiers & self.acknowledged
        self.attempted |= identifiers
        if received:
            broker.acknowledge(self.subscription, received)
            self.acknowledged |= identifiers


def test_nothing_confirmed_is_lost_by_kill_9(folder: Path) -> None:
    """At random points, under publishes and acknowledgements in flight."""
    address = daemon.ensure_running(folder)
    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    topic = broker.topic(unique("topic"))
    load = Load(topic, broker.subscription(topic))
    broker.close()

    for _ in range(ITERATIONS):
        threads = load.run(address)
        threading.Event().wait(random.uniform(0.1, 0.6))
        info = daemon.status(folder)
        assert info is not None
        os.kill(info["pid"], signal.SIGKILL)
        for thread in threads:
            thread.join(timeout=20)
        wait_until(lambda: daemon.status(folder) is None)
        address = daemon.ensure_running(folder)

    drained = Broker(OURS, grpc.insecure_channel(address), "p")
    wait_until(
        lambda: load.has_consumed_all(drained),
        timeout=LEASE_SECONDS * 3 + ITERATIONS,  # the backlog grows with them
        what="every confirmed message is delivered",
    )
    drained.close()
    assert len(load.published) > 50 * ITERATIONS
    assert load.violations == []
