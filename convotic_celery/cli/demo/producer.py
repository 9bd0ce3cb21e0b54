"""The demo's foreign producer: Google's own client and plain JSON; it knows nothing of Celery."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import grpc
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

__all__ = ["Producer", "close_publisher", "make_publisher", "make_subscriber"]


class Producer:
    """Publish orders to one topic and count what the server confirms. Not reusable."""

    def __init__(self, topic: str, *, emulator_address: str | None) -> None:
        """Connect to the emulator at an address or, without one, to Google Cloud.

        Args:
            topic: Full path, ``projects/P/topics/T``.
            emulator_address: ``host:port``, or None for the real service.
        """
        self._topic = topic
        self._lock = threading.Lock()
        self._confirmed = 0
        self._error: BaseException | None = None
        self._client = make_publisher(emulator_address)

    @property
    def confirmed(self) -> int:
        """How many publishes the server has confirmed so far."""
        with self._lock:
            return self._confirmed

    def raise_if_failed(self) -> None:
        """Raise the first error of a publish, if any failed."""
        with self._lock:
            if self._error is not None:
                raise self._error

    def publish(self, orders: Iterable[Mapping[str, Any]]) -> None:
        """Hand all orders to the client, which batches and sends them in the background."""
        for order in orders:
            data = json.dumps(order).encode()
            future = self._client.publish(self._topic, data, source="demo")
            future.add_done_callback(self._count)

    def close(self) -> None:
        """Flush what is batched, end the client's threads and its connection."""
        close_publisher(self._client)

    def _count(self, future: Future[str]) -> None:
        error = future.exception()
        with self._lock:
            if error is None:
                self._confirmed += 1
            elif self._error is None:
                self._error = error


def make_publisher(emulator_address: str | None) -> PublisherClient:
    """Return Google's publisher client for the emulator at an address, or for Google Cloud."""
    transport = None
    if emulator_address is not None:
        transport = PublisherGrpcTransport(channel=grpc.insecure_channel(emulator_address))
    return PublisherClient(transport=transport)


def close_publisher(client: PublisherClient) -> None:
    """Flush what is batched, end the client's threads and close its connection."""
    client.stop()
    client.transport.close()  # type: ignore[no-untyped-call]  # Google's


def make_subscriber(emulator_address: str | None) -> SubscriberClient:
    """Return Google's subscriber client for the emulator at an address, or for Google Cloud."""
    transport = None
    if emulator_address is not None:
        transport = SubscriberGrpcTransport(channel=grpc.insecure_channel(emulator_address))
    return SubscriberClient(transport=transport)
