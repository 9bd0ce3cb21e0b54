"""Ordered subscriptions over several streams: ``python -m benchmarks.ordered [--google]``.

Each row: messages of some keys, published one after the other as fast as confirmations come, and
acknowledged together every 100 ms, as clients do. The rate should not depend on how many streams
are open (Node opens 5 by default, Go 10; two workers are two) or how many keys there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections import defaultdict
from typing import Any

import grpc
from google.pubsub_v1.types import pubsub as t

from benchmarks.emulator import start_google, start_ours

STREAMS = (1, 2, 5, 10)
KEYS = (1, 10)
ACK_SECONDS = 0.1
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


async def rate(address: str, *, streams: int, keys: int, messages: int, batch: int) -> float:
    """Return messages per second, from the first publish to the last message received."""
    project = f"projects/p-{uuid.uuid4().hex[:8]}"
    topic, name = f"{project}/topics/orders", f"{project}/subscriptions/orders"
    subscribers = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(streams)]
    async with grpc.aio.insecure_channel(address) as channel:
        await _call(channel, "Publisher/CreateTopic", t.Topic.pb()(name=topic))
        wanted = t.Subscription.pb()(name=name, topic=topic, enable_message_ordering=True)
        await _call(channel, "Subscriber/CreateSubscription", wanted)
        received: dict[str, list[int]] = defaultdict(list)
        done = asyncio.Event()

        def take(message: Any) -> None:
            key = message.ordering_key
            number = int(message.data)
            if number not in received[key]:
                received[key].append(number)
            if sum(map(len, received.values())) == messages:
                done.set()

        tasks = [asyncio.create_task(_subscribe(each, name, take)) for each in subscribers]
        await asyncio.sleep(0.3)  # streams are open
        began = time.monotonic()
        for first in range(0, messages, batch):
            numbers = range(first, min(first + batch, messages))
            request = t.PublishRequest.pb()(topic=topic)
            for number in numbers:
                request.messages.add(data=b"%d" % number, ordering_key=f"k{number % keys}")
            await _call(channel, "Publisher/Publish", request)
        await asyncio.wait_for(done.wait(), 120)
        seconds = time.monotonic() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for subscriber in subscribers:
        await subscriber.close(None)
    assert all(numbers == sorted(numbers) for numbers in received.values()), "not in order"
    return messages / seconds


async def _subscribe(channel: grpc.aio.Channel, name: str, take: Any) -> None:
    open_stream: Any = channel.stream_stream(
        "/google.pubsub.v1.Subscriber/StreamingPull",
        request_serializer=t.StreamingPullRequest.pb().SerializeToString,
        response_deserializer=t.StreamingPullResponse.pb().FromString,
    )
    stream = open_stream()
    request = t.StreamingPullRequest.pb()
    first = request(
        subscription=name, stream_ack_deadline_seconds=60, max_outstanding_messages=1000
    )
    await stream.write(first)
    waiting: list[str] = []

    async def acknowledge() -> None:
        while True:
            await asyncio.sleep(ACK_SECONDS)
            if waiting:
                await stream.write(request(ack_ids=waiting))
                waiting.clear()

    acknowledging = asyncio.create_task(acknowledge())
    try:
        async for response in stream:
            for entry in response.received_messages:
                take(entry.message)
                waiting.append(entry.ack_id)
    finally:
        acknowledging.cancel()
        stream.cancel()


async def _call(channel: grpc.aio.Channel, method: str, request: Any) -> Any:
    function: Any = channel.unary_unary(
        f"/google.pubsub.v1.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=lambda data: data,
    )
    return await function(request)


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--google", action="store_true", help="Google's emulator instead of ours")
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1, help="messages in a publish request")
    options = parser.parse_args()
    figures = {}
    with (start_google if options.google else start_ours)() as (address, _):
        for keys in KEYS:
            for streams in STREAMS:
                figures[f"{keys} keys, {streams} streams"] = round(
                    asyncio.run(
                        rate(
                            address,
                            streams=streams,
                            keys=keys,
                            messages=options.messages,
                            batch=options.batch,
                        )
                    )
                )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
