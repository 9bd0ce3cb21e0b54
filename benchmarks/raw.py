"""The raw client: Google's generated client on the emulator, without Celery and our worker."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import AlreadyExists, NotFound
from google.pubsub_v1.types import StreamingPullRequest

from convotic_celery.cli.demo.producer import close_publisher, make_publisher, make_subscriber

__all__ = ["RawClient"]

#: With it a message is 200 bytes of JSON.
PADDING = "x" * 160


class RawClient:
    """Publishes and pulls on one topic and one subscription. Close it."""

    def __init__(self, address: str, project: str, topic: str, subscription: str) -> None:
        self._topic = f"projects/{project}/topics/{topic}"
        self._subscription = f"projects/{project}/subscriptions/{subscription}"
        self._publisher = make_publisher(address)
        self._subscriber = make_subscriber(address)

    def close(self) -> None:
        close_publisher(self._publisher)
        self._subscriber.close()

    def create(self) -> None:
        """Create topic and subscription if they are not there."""
        for create, request in (
            (self._publisher.create_topic, {"name": self._topic}),
            (
                self._subscriber.create_subscription,
                {"name": self._subscription, "topic": self._topic},
            ),
        ):
            with suppress(AlreadyExists):
                create(request=request)

    def exists(self) -> bool:
        """Tell whether the subscription is there."""
        try:
            self._subscriber.get_subscription(subscription=self._subscription)
        except NotFound:
            return False
        return True

    def publish(self, count: int) -> None:
        """Publish ``count`` messages in batches and wait until all are confirmed."""
        futures = [self._publisher.publish(self._topic, make_data()) for _ in range(count)]
        for future in futures:
            future.result(60)

    def publish_one(self) -> None:
        """Publish one message now, without the client's batching."""
        message = {"data": make_data()}
        self._publisher.api.publish(topic=self._topic, messages=[message])

    def purge(self) -> None:
        """Forget what is there."""
        self._subscriber.seek(
            request={"subscription": self._subscription, "time": datetime.now(UTC)}
        )

    def drain(self, count: int) -> list[int]:
        """Pull and acknowledge ``count`` messages; return when each arrived."""
        arrivals: list[int] = []
        while len(arrivals) < count:
            answer = self._subscriber.pull(subscription=self._subscription, max_messages=1000)
            now = time.monotonic_ns()
            arrivals += [now] * len(answer.received_messages)
            ids = [received.ack_id for received in answer.received_messages]
            self._subscriber.acknowledge(subscription=self._subscription, ack_ids=ids)
        return arrivals

    def measure_latency(self, count: int) -> list[float]:
        """Publish one at a time and read them from a stream; return seconds of each."""
        latencies: list[float] = []
        requests: queue.Queue[Any] = queue.Queue()
        first = StreamingPullRequest(
            subscription=self._subscription, stream_ack_deadline_seconds=30
        )
        requests.put(first)
        stream = self._subscriber.streaming_pull(requests=iter_until_none(requests))
        arrived = threading.Event()

        def read() -> None:
            for answer in stream:
                now = time.monotonic_ns()
                for received in answer.received_messages:
                    sent = json.loads(received.message.data)["sent"]
                    latencies.append((now - sent) / 1e9)
                    requests.put(StreamingPullRequest(ack_ids=[received.ack_id]))
                arrived.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for _ in range(count):
            arrived.clear()
            self.publish_one()
            arrived.wait(10)
        requests.put(None)
        reader.join(5)
        return latencies


def iter_until_none(requests: queue.Queue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request


def make_data() -> bytes:
    return json.dumps({"sent": time.monotonic_ns(), "padding": PADDING}).encode()
