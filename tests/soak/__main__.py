"""Mixed load on the transport for minutes: nothing of the process may have grown afterwards.

``python -m tests.soak [--seconds 600] [--outage-seconds 3600]``

Successes, failures with redelivery, rejects, handed-back messages, transient queues, kombu
connections that come and go, an ordered queue. The figures at the end are compared with those after
a tenth of the time; the exit status is 1 when threads, descriptors or subscriptions differ, or
memory has grown by more than a tenth and 10 MB. Then a worker loses its broker for an hour
(``outage.py``).
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil
from kombu import Connection, Queue
from kombu.utils.uuid import uuid

from convotic_emulator import daemon
from convotic_pubsub.queue import Lapse, Return
from convotic_pubsub.registry import session_for
from tests.acceptance.stage import make_stage
from tests.conftest import end_servers
from tests.soak.outage import lose_broker
from tests.support.pubsub import Harness, make_spec

PROJECT = "pubsub://test-project"


def main() -> int:
    """Run, compare, report."""
    parser = argparse.ArgumentParser(prog="tests.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--outage-seconds", type=float, default=3600.0)
    options = parser.parse_args()
    logging.getLogger("convotic_pubsub").setLevel(logging.ERROR)  # a line a dead letter
    folder = Path(tempfile.mkdtemp(prefix="convotic-soak-"))
    try:
        failed = options.seconds and soak(
            daemon.ensure_running(folder, idle_seconds=0), options.seconds
        )
        daemon.stop(folder)
        return int(failed or (options.outage_seconds and lose(folder, options.outage_seconds)))
    finally:
        end_servers(folder)
        shutil.rmtree(folder, ignore_errors=True)


def lose(folder: Path, seconds: float) -> int:
    """Take a worker's broker away for so long; return the exit status."""
    daemon.ensure_running(folder / "data", idle_seconds=0)  # nobody reaches it for so long
    found = lose_broker(make_stage(folder, folder / "data", None), seconds=seconds, messages=1000)
    print(found.show())  # noqa: T201 - its output
    end_servers(folder / "data")
    return int(not found.holds)


def soak(address: str, seconds: float) -> int:
    """Load for so long; return the exit status."""
    specs = [
        make_spec(concurrency=20, buffer_messages=20),
        make_spec(concurrency=5, enable_message_ordering=True),
    ]
    harnesses = [Harness(address, spec) for spec in specs]
    for each in harnesses:
        each.on_message = settle
        each.consume()
    clock = harnesses[0].session.clock
    start = clock()
    warm: dict[str, int] | None = None
    rounds = 0
    while clock() < start + seconds:
        rounds += 1
        load(harnesses, address, rounds)
        if rounds % 50 == 0:  # a busy machine publishes faster than it consumes
            for each in harnesses:
                finish(each)
        if warm is None and clock() > start + seconds / 10:
            warm = measure(harnesses)
    for each in harnesses:
        finish(each)
    end = measure(harnesses)
    for each in harnesses:
        each.close()
    assert warm is not None
    print(f"{rounds} rounds; after a tenth: {warm}; at the end: {end}")  # noqa: T201 - its output
    same = all(end[name] <= warm[name] for name in ("threads", "descriptors", "subscriptions"))
    grown = end["memory_mb"] - warm["memory_mb"]
    return 0 if same and grown <= max(10, warm["memory_mb"] / 10) else 1


def settle(message: Any) -> None:
    """Do what the message says, once."""
    outcome = "ack" if message.headers["deliveries"] > 1 else message.body.decode().strip('"')
    if outcome == "lapse":
        message.settle(Lapse(1))
    elif outcome == "return_unrun":
        message.settle(Return())
    elif outcome == "reject":
        message.reject(requeue=False)
    else:
        message.ack()


def load(harnesses: list[Harness], address: str, rounds: int) -> None:
    """Publish a hundred messages to each queue, use transient queues, and drain."""
    for each in harnesses:
        outcomes = ["ack", "lapse", "return_unrun", "reject"]
        each.publish(*random.choices(outcomes, [90, 4, 4, 2], k=100))
        each.drain_for(0.1)
        each.messages.clear()
    if rounds % 10 == 0:
        harnesses[0].cancel()
        harnesses[0].consume()
    connection: Any = Connection(PROJECT, transport_options={"emulator_host": address})
    with connection:
        name = f"{uuid()}.reply.celery.pidbox"  # a process's own, on the control topic
        queue: Any = Queue(name, auto_delete=True, channel=connection.default_channel)
        queue.declare()
        connection.Producer().publish({"round": rounds}, routing_key=name)
        queue.delete()


def finish(harness: Harness) -> None:
    """Hand over all that is left, and keep nothing of it: on a busy machine that is a lot."""

    def is_done() -> bool:
        harness.messages.clear()
        return not harness.session.outstanding

    harness.drain_until(is_done, seconds=30)
    harness.session.flush()
    gc.collect()


def measure(harnesses: list[Harness]) -> dict[str, int]:
    """Return what must not grow."""
    process = psutil.Process()
    session = session_for(PROJECT, {"emulator_host": harnesses[0].session.broker.address})
    return {
        "threads": threading.active_count(),
        "descriptors": process.num_fds(),
        "memory_mb": process.memory_info().rss // 1_000_000,
        "subscriptions": len(session.resources.list_subscriptions("celery.control")),
        "remembered": len(harnesses[0].session.outstanding._returned),
    }


if __name__ == "__main__":
    sys.exit(main())
