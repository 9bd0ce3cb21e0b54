"""Our server beside Google's emulator, in one run: ``python -m benchmarks.emulator``.

The same raw asynchronous client measures both: latency of a unary publish and from publish to
StreamingPull, in turns of 50 calls, first on servers just started, then on warm ones; the rate of
publishing in batches and of one StreamingPull with acknowledgements, in three turns, of which the
median counts; and the server's memory with a backlog. A server that only echoes takes turns too:
the floor of gRPC in Python.
Rates and latencies are the client's and the server's together: they share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
TURN = 50
ROUNDS = 3
TOPIC = "projects/bench/topics/bench"
SUBSCRIPTION = "projects/bench/subscriptions/bench"

Figures = dict[str, float]


def main() -> None:
    """Measure all, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--latencies", type=int, default=500)
    parser.add_argument("--warm-up", type=int, default=4_000, help="calls between cold and warm")
    options = parser.parse_args()
    with start_ours() as ours, start_google() as google, start_echo() as echo:
        figures = asyncio.run(measure({"ours": ours, "google": google, "echo": echo}, options))
    ratios = {
        name: round(value / figures["google"][name], 2) for name, value in figures["ours"].items()
    }
    print(json.dumps({**figures, "ours / google": ratios}, indent=2))


@contextmanager
def start_ours() -> Iterator[tuple[str, int]]:
    """Start our server; yield address and process id."""
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        address = daemon.ensure_running(folder)
        info = daemon.status(folder)
        assert info is not None
        yield address, info["pid"]
    finally:
        daemon.stop(folder)
        shutil.rmtree(folder)


@contextmanager
def start_google() -> Iterator[tuple[str, int]]:
    """Start Google's emulator; yield address and process id."""
    with start_google_emulator() as address:
        [java] = [p for p in psutil.Process().children(recursive=True) if p.name() == "java"]
        yield address, java.pid


@contextmanager
def start_echo() -> Iterator[tuple[str, int]]:
    """Start the server that only echoes; yield address and process id."""
    command = [sys.executable, "-m", "benchmarks.echo"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        yield f"127.0.0.1:{int(echo.stdout.readline())}", echo.pid
        echo.stdin.close()


async def measure(
    servers: dict[str, tuple[str, int]], options: argparse.Namespace
) -> dict[str, Figures]:
    """Measure all servers, from an empty topic to an empty subscription."""
    figures: dict[str, Figures] = {name: {} for name in servers}
    channels = {name: grpc.aio.insecure_channel(address) for name, (address, _) in servers.items()}
    stores = {name: channel for name, channel in channels.items() if name != "echo"}
    streams = {name: await prepare(channel) for name, channel in stores.items()}
    turns = options.latencies // TURN
    for state in ("cold", "warm"):
        await measure_publishes(channels, turns, state, figures)
        for stream in streams.values():
            await drain(stream, turns * TURN)
        await measure_deliveries(channels, streams, turns, state, figures)
        if state == "cold":
            for channel in channels.values():
                for _ in range(options.warm_up):
                    await publish(channel, 1)
            for stream in streams.values():
                await drain(stream, options.warm_up)
    for stream in streams.values():
        await end_stream(stream)
    await measure_rates(
        {name: (channels[name], servers[name][1]) for name in stores}, figures, options.messages
    )
    for channel in channels.values():
        await channel.close(None)
    return figures


async def prepare(channel: grpc.aio.Channel) -> Any:
    """Create topic and subscription; return an open stream."""
    await call(channel, "Publisher/CreateTopic", t.Topic.pb()(name=TOPIC), t.Topic.pb())
    subscription = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC)
    await call(channel, "Subscriber/CreateSubscription", subscription, t.Subscription.pb())
    stream = open_stream(channel)
    await stream.write(
        t.StreamingPullRequest.pb()(subscription=SUBSCRIPTION, stream_ack_deadline_seconds=60)
    )
    return stream


async def measure_publishes(
    channels: dict[str, grpc.aio.Channel], turns: int, state: str, figures: dict[str, Figures]
) -> None:
    """Publish one message at a time; time its confirmation."""
    latencies: dict[str, list[float]] = {name: [] for name in channels}
    for _ in range(turns):
        for name, channel in channels.items():
            for _ in range(TURN):
                start = time.perf_counter()
                await publish(channel, 1)
                latencies[name].append(time.perf_counter() - start)
    note(latencies, f"{state}_publish", figures)


async def measure_deliveries(
    channels: dict[str, grpc.aio.Channel],
    streams: dict[str, Any],
    turns: int,
    state: str,
    figures: dict[str, Figures],
) -> None:
    """Publish one message at a time; time its arrival on a stream."""
    latencies: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(turns):
        for name, stream in streams.items():
            for _ in range(TURN):
                start = time.perf_counter()
                pending = asyncio.ensure_future(publish(channels[name], 1))
                received = list((await stream.read()).received_messages)
                latencies[name].append(time.perf_counter() - start)
                await pending
                await acknowledge(stream, received)
    note(latencies, f"{state}_delivery", figures)


async def measure_rates(
    stores: dict[str, tuple[grpc.aio.Channel, int]], figures: dict[str, Figures], messages: int
) -> None:
    """Fill and empty each server in turns; note the medians, and the memory with a backlog."""
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in stores}
    for _ in range(ROUNDS):
        for name, (channel, pid) in stores.items():
            # A StreamingPull of Google's emulator gives about 2,000 messages a second.
            count = messages if name == "ours" else messages // 5
            published = await measure_publishing(channel, count)
            memory = psutil.Process(pid).memory_info().rss / 1e6
            measured[name].append((published, await measure_delivery(channel, count), memory))
    for name, rounds in measured.items():
        published, delivered, memory = map(statistics.median, zip(*rounds, strict=True))
        figures[name]["batched_publishes_per_second"] = round(published)
        figures[name]["stream_deliveries_per_second"] = round(delivered)
        figures[name]["resident_mb_with_backlog"] = round(memory)


def note(latencies: dict[str, list[float]], what: str, figures: dict[str, Figures]) -> None:
    """Add median and 95th percentile to the figures."""
    for name, values in latencies.items():
        cuts = statistics.quantiles(values, n=20)
        figures[name][f"{what}_ms_p50"] = round(cuts[9] * 1000, 3)
        figures[name][f"{what}_ms_p95"] = round(cuts[18] * 1000, 3)


async def drain(stream: Any, count: int) -> None:
    """Acknowledge the messages that were published without a reader."""
    drained = 0
    while drained < count:
        received = list((await stream.read()).received_messages)
        drained += len(received)
        await acknowledge(stream, received)


async def measure_publishing(channel: grpc.aio.Channel, messages: int) -> float:
    """Publish batches, four requests at a time; return messages per second."""
    start = time.perf_counter()
    slots = asyncio.Semaphore(4)

    async def one() -> None:
        async with slots:
            await publish(channel, BATCH)

    await asyncio.gather(*(one() for _ in range(messages // BATCH)))
    return messages / (time.perf_counter() - start)


async def measure_delivery(channel: grpc.aio.Channel, messages: int) -> float:
    """Read and acknowledge a backlog over one stream; return messages per second."""
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
    """Half-close, and wait until the server has ended it: it must not take later messages."""
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
