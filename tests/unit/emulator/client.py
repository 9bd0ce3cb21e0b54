"""A small asynchronous client of an in-process server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.server import EmulatorServer
from tests.support.waiting import PATIENCE

TOPIC = "projects/p/topics/orders"
SUBSCRIPTION = "projects/p/subscriptions/orders.sub"


class Client:
    """Raw calls; ``async with Client(server)``."""

    def __init__(self, server: EmulatorServer) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        self.channel = grpc.aio.insecure_channel(server.address, options=options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(grace=None)

    async def call(self, method: str, request: Any, response: Any = empty_pb2.Empty) -> Any:
        """Call ``Service/Method``."""
        function: Any = self.channel.unary_unary(
            f"/google.pubsub.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await function(request, timeout=PATIENCE)

    async def create(self, **fields: Any) -> None:
        """Create the topic and a subscription."""
        await self.call("Publisher/CreateTopic", t.Topic.pb()(name=TOPIC), t.Topic.pb())
        subscription = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC, **fields)
        await self.call("Subscriber/CreateSubscription", subscription, t.Subscription.pb())

    async def publish(self, *bodies: bytes, **fields: Any) -> list[str]:
        """Publish; return the ids."""
        messages = [t.PubsubMessage.pb()(data=body, **fields) for body in bodies]
        request = t.PublishRequest.pb()(topic=TOPIC, messages=messages)
        response = await self.call("Publisher/Publish", request, t.PublishResponse.pb())
        return list(response.message_ids)

    async def pull(self, limit: int = 1000) -> list[Any]:
        """Return what is available now."""
        request = t.PullRequest.pb()(
            subscription=SUBSCRIPTION, max_messages=limit, return_immediately=True
        )
        response = await self.call("Subscriber/Pull", request, t.PullResponse.pb())
        return list(response.received_messages)

    async def acknowledge(self, received: Sequence[Any]) -> None:
        """Acknowledge."""
        request = t.AcknowledgeRequest.pb()(
            subscription=SUBSCRIPTION, ack_ids=[m.ack_id for m in received]
        )
        await self.call("Subscriber/Acknowledge", request)

    async def modify(self, received: Sequence[Any], seconds: int) -> None:
        """Set deadlines."""
        request = t.ModifyAckDeadlineRequest.pb()(
            subscription=SUBSCRIPTION,
            ack_ids=[m.ack_id for m in received],
            ack_deadline_seconds=seconds,
        )
        await self.call("Subscriber/ModifyAckDeadline", request)

    async def stream(self, seconds: int = 10) -> Any:
        """Return an open StreamingPull; its leases have so many seconds."""
        method: Any = self.channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=t.StreamingPullRequest.pb().SerializeToString,
            response_deserializer=t.StreamingPullResponse.pb().FromString,
        )
        stream = method()
        request = t.StreamingPullRequest.pb()
        await stream.write(request(subscription=SUBSCRIPTION, stream_ack_deadline_seconds=seconds))
        return stream


def bodies(received: Sequence[Any]) -> list[bytes]:
    """Return the data of received messages."""
    return [m.message.data for m in received]
