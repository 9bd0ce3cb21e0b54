"""The raw client: Google's generated client on the emulator, without Celery or our worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from google.api_core.exceptions import NotFound

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

    def exists(self) -> bool:
        """Return whether the subscription exists."""
        try:
            self._subscriber.get_subscription(subscription=self._subscription)
        except NotFound:
            return False
        return True

    def publish(self, count: int) -> None:
        """Publish ``count`` messages in batches and wait until all are confirmed."""
        self.publish_all(make_data() for _ in range(count))

    def publish_all(self, data: Iterable[bytes]) -> None:
        """Publish messages in batches and wait until all are confirmed."""
        futures = [self._publisher.publish(self._topic, each) for each in data]
        for future in futures:
            future.result(60)

    def publish_one(self) -> None:
        """Publish one message now, without the client's batching."""
        message = {"data": make_data()}
        self._publisher.api.publish(topic=self._topic, messages=[message])

    def purge(self) -> None:
        """Drop all messages."""
        self._subscriber.seek(
            request={"subscription": self._subscription, "time": datetime.now(UTC)}
        )


def make_data() -> bytes:
    return json.dumps({"sent": time.monotonic_ns(), "padding": PADDING}).encode()
