"""Google's own client reads headers of any size that it allows, and keeps its connection."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as t
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs

from convotic_emulator.server import EmulatorServer
from tests.support.waiting import PATIENCE
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client

#: What Google's clients of Pub/Sub set, for these very errors.
LARGE = [("grpc.max_metadata_size", 4 << 20)]


def method(channel: Any, name: str, response: Any) -> Any:
    """Return a function that calls a method of the Subscriber."""
    return channel.unary_unary(
        f"/google.pubsub.v1.Subscriber/{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=response.FromString,
    )


@pytest.mark.parametrize("options", [LARGE, []], ids=["large", "default"])
async def test_a_thousand_repeated_ids(options: list[tuple[str, int]]) -> None:
    """Each is named in the error's details, or none where the client can't take so much."""
    async with EmulatorServer() as server, Client(server) as client:
        await client.create(enable_exactly_once_delivery=True, ack_deadline_seconds=600)
        await client.publish(*[b"x"] * 1000)
        received = await client.pull()
        await client.acknowledge(received)
        ids = [entry.ack_id for entry in received]
        channel: Any
        async with grpc.aio.insecure_channel(server.address, options=options) as channel:
            acknowledge = method(channel, "Acknowledge", empty_pb2.Empty)
            request = t.AcknowledgeRequest.pb()(subscription=SUBSCRIPTION, ack_ids=ids)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await acknowledge(request, timeout=PATIENCE)

            assert len(ids) == 1000
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            metadata: Any = caught.value.trailing_metadata() or ()
            trailers = dict(metadata)
            if options:
                status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
                info = error_details_pb2.ErrorInfo()
                status.details[0].Unpack(info)
                assert set(info.metadata) == set(ids)
            else:
                assert "grpc-status-details-bin" not in trailers
            get = method(channel, "GetSubscription", t.Subscription.pb())
            wanted = t.GetSubscriptionRequest.pb()(subscription=SUBSCRIPTION)
            assert (await get(wanted, timeout=PATIENCE)).topic == TOPIC


async def test_an_error_that_quotes_a_long_name() -> None:
    """It is clipped; the rule that it ends with is not."""
    async with EmulatorServer() as server, Client(server) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(
                "Publisher/CreateTopic",
                t.Topic.pb()(name="projects/p/topics/" + "ü" * 20_000),
                t.Topic.pb(),
            )

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        details = caught.value.details() or ""
        assert len(details) < 1000
        assert details.startswith("Invalid [topics] name")
        assert "characters" in details[-200:]
        await client.create()
