"""``python -m benchmarks.publishing ADDRESS N``: our publishing beside a raw unary gRPC call.

Prints one JSON object: ``many``, messages per second of ``publish_many``; ``concurrent``, the same
of a thousand awaited publishes at once; ``turns``, milliseconds that 100 coroutines take for ten
awaited publishes each; ``single`` and ``raw``, median milliseconds of one awaited publish, ours and
grpc.aio's, taken in turns.

``python -m benchmarks.publishing ADDRESS N RECORD`` publishes one at a time, as any program would:
the next one when a worker has recorded the last one in RECORD.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.pubsub_v1.types import pubsub as t

from benchmarks.figures import has_lines
from benchmarks.handler import TOPIC
from benchmarks.raw import PADDING
from convotic_celery import pubsub
from convotic_celery.configuration import LOCAL_BROKER_URL
from tests.support.waiting import wait_until

_SINGLES = 300
_ROUNDS = 5


def main() -> None:
    address, count = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        publish_in_turn(count, Path(sys.argv[3]))
        return
    data = {"sent": 1, "padding": PADDING}
    pubsub.publish(TOPIC, data=data)  # connects, creates the topic
    began = time.perf_counter()
    pubsub.publish_many(TOPIC, [{"data": data} for _ in range(count)])
    many = count / (time.perf_counter() - began)
    concurrent, turns = asyncio.run(measure_concurrent(data))
    single, raw = asyncio.run(measure_singles(address, data))
    figures = {"many": many, "concurrent": concurrent, "turns": turns, "single": single, "raw": raw}
    print(json.dumps(figures))


async def measure_concurrent(data: dict[str, Any]) -> tuple[float, float]:
    """Return publishes a second of a thousand at once, and the time of ten by each of 100."""

    async def publish(times: int) -> None:
        for _ in range(times):
            await pubsub.apublish(TOPIC, data=data)

    async def seconds(coroutines: int, times: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(publish(times) for _ in range(coroutines)))
        return time.perf_counter() - began

    at_once = [await seconds(1000, 1) for _ in range(_ROUNDS)]
    turns = [await seconds(100, 10) for _ in range(_ROUNDS)]
    return 1000 / statistics.median(at_once), statistics.median(turns) * 1000


def publish_in_turn(count: int, record: Path) -> None:
    for number in range(count):
        pubsub.publish(TOPIC, data={"sent": time.monotonic_ns(), "padding": PADDING})
        wait_until(partial(has_lines, record, number + 1), timeout=30, what="one message")


async def measure_singles(address: str, data: dict[str, Any]) -> tuple[float, float]:
    """Return the medians of both, in milliseconds."""
    project = LOCAL_BROKER_URL.removeprefix("pubsub://")
    path = f"projects/{project}/topics/{TOPIC}"
    body = json.dumps(data).encode()
    ours, raws = [], []
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish",
            request_serializer=t.PublishRequest.pb().SerializeToString,
            response_deserializer=t.PublishResponse.pb().FromString,
        )
        message = t.PubsubMessage.pb()(data=body)
        for _ in range(_SINGLES):
            began = time.perf_counter()
            await pubsub.apublish(TOPIC, data=data)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            await call(t.PublishRequest.pb()(topic=path, messages=[message]))
            raws.append(time.perf_counter() - began)
    return statistics.median(ours) * 1000, statistics.median(raws) * 1000


if __name__ == "__main__":
    main()
