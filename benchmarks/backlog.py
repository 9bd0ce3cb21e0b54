"""What a huge backlog does to other clients: ``python -m benchmarks.backlog [--messages 1000000]``.

Runs seek, snapshot, detach and delete on that many messages of 500 bytes, while an observer
publishes one message at a time to a topic of its own. Prints the seconds of each operation, and the
slowest and the median of those publishes in milliseconds. In the end the observer goes on until the
deleted rows are gone and the file has shrunk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import timestamp_pb2
from google.pubsub_v1.types import pubsub as t

from benchmarks.emulator import call
from convotic_emulator import daemon
from tests.support.waiting import wait_until_async

PROJECT = "projects/bench"
TOPIC = f"{PROJECT}/topics/huge"
OTHER = f"{PROJECT}/topics/other"
SNAPSHOT = f"{PROJECT}/snapshots/huge"
BODY = b"x" * 500
BATCH = 1000
#: Between two publishes of the observer.
PAUSE_SECONDS = 0.005

Figures = dict[str, dict[str, float]]


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        address = daemon.ensure_running(folder)
        figures = asyncio.run(measure(address, folder / daemon.DATA_FILE, options.messages))
    finally:
        daemon.stop(folder)
        shutil.rmtree(folder)
    print(json.dumps(figures, indent=2))


async def measure(address: str, file: Path, messages: int) -> Figures:
    """Run every operation once, on subscriptions with the same backlog."""
    figures: Figures = {}
    async with grpc.aio.insecure_channel(address) as channel:
        for topic in (TOPIC, OTHER):
            await call(channel, "Publisher/CreateTopic", t.Topic.pb()(name=topic), t.Topic.pb())
        for name, topic in (("kept", TOPIC), ("detached", TOPIC), ("other", OTHER)):
            await subscribe(channel, name, topic, retain_acked_messages=True)
        begin = time.time()
        for _ in range(messages // BATCH):
            await publish(channel, TOPIC, BATCH)
        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "nothing": lambda: asyncio.sleep(1),
            "create_snapshot": lambda: call(
                channel,
                "Subscriber/CreateSnapshot",
                t.CreateSnapshotRequest.pb()(name=SNAPSHOT, subscription=path("kept")),
                t.Snapshot.pb(),
            ),
            "seek_to_now": lambda: seek(channel, time=stamp(time.time() + 1)),
            "seek_back": lambda: seek(channel, time=stamp(begin - 60)),
            "seek_to_snapshot": lambda: seek(channel, snapshot=SNAPSHOT),
            "detach": lambda: call(
                channel,
                "Publisher/DetachSubscription",
                t.DetachSubscriptionRequest.pb()(subscription=path("detached")),
                t.DetachSubscriptionResponse.pb(),
            ),
            "delete": lambda: call(
                channel,
                "Subscriber/DeleteSubscription",
                t.DeleteSubscriptionRequest.pb()(subscription=path("kept")),
            ),
            "delete_snapshot": lambda: call(
                channel,
                "Subscriber/DeleteSnapshot",
                t.DeleteSnapshotRequest.pb()(snapshot=SNAPSHOT),
            ),
        }
        for name, step in steps.items():
            async with observed(channel, figures, name):
                await step()
        before = size_mb(file)
        async with observed(channel, figures, "sweep_and_shrink"):
            await wait_until_async(lambda: size_mb(file) < before / 10, timeout=600)
        figures["file_mb"] = {"before": before, "after": size_mb(file)}
    return figures


@asynccontextmanager
async def observed(channel: grpc.aio.Channel, figures: Figures, name: str) -> AsyncIterator[None]:
    """Time the block, and the observer's publishes meanwhile."""
    latencies: list[float] = []

    async def observe() -> None:
        while True:
            start = time.perf_counter()
            await publish(channel, OTHER, 1)
            latencies.append(time.perf_counter() - start)
            await asyncio.sleep(PAUSE_SECONDS)

    observer = asyncio.create_task(observe())
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    await asyncio.sleep(0.1)
    observer.cancel()
    figures[name] = {
        "seconds": round(seconds, 3),
        "publish_ms_p50": round(statistics.median(latencies) * 1000, 2),
        "publish_ms_max": round(max(latencies) * 1000, 1),
    }


async def subscribe(channel: grpc.aio.Channel, name: str, topic: str, **fields: Any) -> None:
    """Create a subscription."""
    subscription = t.Subscription.pb()(name=path(name), topic=topic, **fields)
    await call(channel, "Subscriber/CreateSubscription", subscription, t.Subscription.pb())


async def publish(channel: grpc.aio.Channel, topic: str, count: int) -> None:
    """Publish one request of ``count`` messages."""
    message = t.PubsubMessage.pb()(data=BODY)
    request = t.PublishRequest.pb()(topic=topic, messages=[message] * count)
    await call(channel, "Publisher/Publish", request, t.PublishResponse.pb())


async def seek(channel: grpc.aio.Channel, **target: Any) -> None:
    """Seek the subscription ``kept``."""
    request = t.SeekRequest.pb()(subscription=path("kept"), **target)
    await call(channel, "Subscriber/Seek", request, t.SeekResponse.pb())


def size_mb(file: Path) -> float:
    """Return a file's size."""
    return round(file.stat().st_size / 1e6)


def path(name: str) -> str:
    """Return a subscription's full name."""
    return f"{PROJECT}/subscriptions/{name}"


def stamp(seconds: float) -> Any:
    """Return a protobuf Timestamp."""
    moment = timestamp_pb2.Timestamp()
    moment.FromMicroseconds(int(seconds * 1e6))
    return moment


if __name__ == "__main__":
    main()
