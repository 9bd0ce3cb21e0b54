"""Our server beside Google's emulator, in one run: ``python -m benchmarks.emulator``.

The same raw asynchronous client measures both, one after the other: latency of a unary publish,
latency from publish to StreamingPull, rate of publishing in batches, rate of one StreamingPull with
acknowledgements, and the memory of the server with a backlog. The rates are the client's and the
server's together: they share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as t

from convotic_emulator import daemon
from tests.support.google_emulator import start_google_emulator

BODY = b"x" * 500
BATCH = 500
TOPIC = "projects/bench/topics/bench"
SUBSCRIPTION = "projects/bench/subscriptions/bench"


def main() -> None:
    """Measure both, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--latencies", type=int, default=300)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        address = daemon.ensure_running(folder)
        info = daemon.status(folder)
        assert info is not None
        ours = asyncio.run(measure(address, info["pid"], options.messages, options.latencies))
    finally:
        daemon.stop(folder)
        shutil.rmtree(folder)
    with start_google_emulator() as address:
        java = [p for p in psutil.Process().children(recursive=True) if p.name() == "java"]
        # A StreamingPull of Google's emulator gives about 2,000 messages a second.
        google = asyncio.run(
            measure(address, java[0].pid, options.messages // 5, options.latencies)
        )
    ratios = {name: round(ours[name] / google[name], 2) for name in ours}
    print(json.dumps({"ours": ours, "google": google, "ours / google": ratios}, indent=2))


async def measure(address: str, pid: int, messages: int, latencies: int) -> dict[str, float]:
    """Measure one server, from an empty topic to an empty subscription."""
    async with grpc.aio.insecure_channel(address) as channel:
        await call(channel, "Publisher/CreateTopic", t.Topic.pb()(name=TOPIC), t.Topic.pb())
        subscription = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC)
        await call(channel, "Subscriber/CreateSubscription", subscription, t.Subscription.pb())
        stream = open_stream(channel)
        await stream.write(
            t.StreamingPullRequest.pb()(subscription=SUBSCRIPTION, stream_ack_deadline_seconds=60)
        )
        publishes, deliveries = await measure_latencies(channel, stream, latencies)
        await end_stream(stream)
        publish_rate = await measure_publishing(channel, messages)
        memory = psutil.Process(pid).memory_info().rss
        delivery_rate = await measure_delivery(channel, messages)
        return {
            "publish_ms_p50": round(statistics.median(publishes) * 1000, 3),
            "publish_ms_p95": round(statistics.quantiles(publishes, n=20)[-1] * 1000, 3),
            "delivery_ms_p50": round(statistics.median(deliveries) * 1000, 3),
            "delivery_ms_p95": round(statistics.quantiles(deliveries, n=20)[-1] * 1000, 3),
            "batched_publishes_per_second": round(publish_rate),
            "stream_deliveries_per_second": round(delivery_rate),
            "resident_mb_with_backlog": round(memory / 1e6),
        }


async def measure_latencies(
    channel: grpc.aio.Channel, stream: Any, count: int
) -> tuple[list[float], list[float]]:
    """Publish one message at a time; time its confirmation and its arrival on a stream."""
    publishes, deliveries = [], []
    for _ in range(count):
        start = time.perf_counter()
        pending = asyncio.ensure_future(publish(channel, 1))
        received = list((await stream.read()).received_messages)
        deliveries.append(time.perf_counter() - start)
        await pending
        await acknowledge(stream, received)
    for _ in range(count):
        start = time.perf_counter()
        await publish(channel, 1)
        publishes.append(time.perf_counter() - start)
    drained = 0
    while drained < count:
        received = list((await stream.read()).received_messages)
        drained += len(received)
        await acknowledge(stream, received)
    return publishes, deliveries


async def measure_publishing(channel: grpc.aio.Channel, messages: int) -> float:
    """Publish batches, four requests at a time; return messages a second."""
    start = time.perf_counter()
    slots = asyncio.Semaphore(4)

    async def one() -> None:
        async with slots:
            await publish(channel, BATCH)

    await asyncio.gather(*(one() for _ in range(messages // BATCH)))
    return messages / (time.perf_counter() - start)


async def measure_delivery(channel: grpc.aio.Channel, messages: int) -> float:
    """Read a backlog over one stream, acknowledging over it; return messages a second."""
    stream = open_stream(channel)
    start = time.perf_counter()
    await stream.write(
        t.StreamingPullRequest.pb()(subscription=SUBSCRIPTION, stream_ack_deadline_seconds=60)
    )
    received = 0
    while received < messages:
        batch = list((await stream.read()).received_messages)
        received += len(batch)
        await acknowledge(stream, batch)
    elapsed = time.perf_counter() - start
    await end_stream(stream)
    return messages / elapsed


def open_stream(channel: grpc.aio.Channel) -> Any:
    """Open a StreamingPull."""
    method: Any = channel.stream_stream(
        "/google.pubsub.v1.Subscriber/StreamingPull",
        request_serializer=t.StreamingPullRequest.pb().SerializeToString,
        response_deserializer=t.StreamingPullResponse.pb().FromString,
    )
    return method()


async def end_stream(stream: Any) -> None:
    """Half-close, and wait until the server has ended it: it must not take what comes next."""
    await stream.done_writing()
    await stream.code()


async def acknowledge(stream: Any, received: list[Any]) -> None:
    """Acknowledge over the stream."""
    await stream.write(t.StreamingPullRequest.pb()(ack_ids=[m.ack_id for m in received]))


async def publish(channel: grpc.aio.Channel, count: int) -> None:
    """Publish one request of ``count`` messages."""
    message = t.PubsubMessage.pb()(data=BODY)
    request = t.PublishRequest.pb()(topic=TOPIC, messages=[message] * count)
    await call(channel, "Publisher/Publish", request, t.PublishResponse.pb())


async def call(
    channel: grpc.aio.Channel, method: str, request: Any, response: Any = empty_pb2.Empty
) -> Any:
    """Call a unary method."""
    function: Any = channel.unary_unary(
        f"/google.pubsub.v1.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=response.FromString,
    )
    return await function(request, timeout=60)


if __name__ == "__main__":
    main()
