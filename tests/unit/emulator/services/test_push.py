"""Push delivery on the server's clock: back-off, ordering, restarts, endpoints that are away."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from tests.support.http_endpoint import Endpoint, Request
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, Client


def data_of(request: Request) -> bytes:
    return base64.b64decode(json.loads(request.body)["message"]["data"])


def config(endpoint: Endpoint) -> Any:
    return t.PushConfig.pb()(push_endpoint=endpoint.url)


async def test_the_back_off_doubles() -> None:
    """0.1, 0.2, 0.4 seconds: of the whole subscription, when it has no retry policy."""
    clock = ManualClock()
    pauses: list[float] = []
    with Endpoint(500, 500, 500) as endpoint:
        async with EmulatorServer(clock=clock) as server, Client(server) as client:

            def pause() -> float:
                next_us = server.engine.broker.timers.next_us() or clock.now_us() + 10**7
                seconds = (next_us - clock.now_us()) / 1e6
                return seconds if seconds < 5 else 0  # else it is the lease's end

            await client.create(push_config=config(endpoint))
            await client.publish(b"x")
            for _ in range(3):
                pauses.append(await wait_until_async(pause))
                clock.advance(pauses[-1])
            await wait_until_async(lambda: len(endpoint.requests) == 4)
            number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
            await wait_until_async(lambda: server.engine.store.counts.messages(number) == 0)
    assert pauses == [0.1, 0.2, 0.4]


async def test_messages_of_a_key_are_pushed_in_order() -> None:
    """The next one waits until the endpoint has taken the one before; a refused one is first."""
    with Endpoint(503) as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            await client.create(push_config=config(endpoint), enable_message_ordering=True)

            await client.publish(*[b"%d" % n for n in range(20)], ordering_key="k")

            await wait_until_async(lambda: len(endpoint.requests) == 21)
    assert [int(data_of(r)) for r in endpoint.requests] == [0, *range(20)]


async def test_a_dead_letter_policy_counts_pushes() -> None:
    """deliveryAttempt is in the envelope."""
    with Endpoint(500) as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            dead = "projects/p/topics/dead"
            await client.call("Publisher/CreateTopic", t.Topic.pb()(name=dead), t.Topic.pb())
            policy = t.DeadLetterPolicy.pb()(dead_letter_topic=dead, max_delivery_attempts=5)
            await client.create(push_config=config(endpoint), dead_letter_policy=policy)

            await client.publish(b"x")

            await wait_until_async(lambda: len(endpoint.requests) == 2)
    assert [json.loads(r.body)["deliveryAttempt"] for r in endpoint.requests] == [1, 2]


async def test_pushing_goes_on_after_a_restart_and_an_outage(tmp_path: Path) -> None:
    """The endpoint was away, then the server was; the message arrives."""
    clock = ManualClock()
    with Endpoint() as gone:
        pass
    path = tmp_path / "data.sqlite3"
    async with EmulatorServer(path, clock=clock) as server, Client(server) as client:
        await client.create(push_config=config(gone))
        await client.publish(b"x")
        await wait_until_async(lambda: server.engine.broker.timers.next_us() is not None)

    with Endpoint() as endpoint:
        async with EmulatorServer(path, clock=clock) as server, Client(server) as client:
            request = t.ModifyPushConfigRequest.pb()(
                subscription=SUBSCRIPTION, push_config=config(endpoint)
            )
            await client.call("Subscriber/ModifyPushConfig", request)
            clock.advance(601)
            await wait_until_async(lambda: endpoint.requests)
    assert data_of(endpoint.requests[0]) == b"x"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/push", grpc.StatusCode.UNIMPLEMENTED),
        ("http://example.com/push", grpc.StatusCode.UNIMPLEMENTED),
        ("http://127.0.0.1.example.com/", grpc.StatusCode.UNIMPLEMENTED),
        ("http://127.0.0.1:80/a b", grpc.StatusCode.INVALID_ARGUMENT),
        ("http://127.0.0.1:80/a\r\nX: y", grpc.StatusCode.INVALID_ARGUMENT),
        ("ftp://127.0.0.1/", grpc.StatusCode.INVALID_ARGUMENT),
        ("http://", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_endpoints_elsewhere_are_refused(url: str, code: grpc.StatusCode) -> None:
    """This machine only; nothing that breaks a request line."""
    async with EmulatorServer() as server, Client(server) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.create(push_config=t.PushConfig.pb()(push_endpoint=url))
    assert refused.value.code() is code
