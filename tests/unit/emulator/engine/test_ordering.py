"""Ordering keys over several streams: who gets which key, and what a failure holds up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client, bodies


@pytest.fixture
async def server() -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer(clock=ManualClock()) as running:
        yield running


@pytest.fixture
async def client(server: EmulatorServer) -> AsyncIterator[Client]:
    async with Client(server) as connected:
        await connected.create(enable_message_ordering=True)
        yield connected


async def read(stream: Any, count: int) -> list[Any]:
    """Return the next messages of a stream."""
    received: list[Any] = []
    while len(received) < count:
        received += (await stream.read()).received_messages
    return received


async def open_streams(server: EmulatorServer, client: Client, count: int) -> list[Any]:
    """Return streams that all wait for messages."""
    streams = [await client.stream() for _ in range(count)]
    state = server.engine.registry.subscription(SUBSCRIPTION).state
    waiting = server.engine.dispatcher._waiting
    await wait_until_async(lambda: len(waiting.get(state, ())) == count)
    return streams


async def test_keys_are_shared_between_streams(server: EmulatorServer, client: Client) -> None:
    """Each stream gets half of ten keys at once, all their messages, each key in order."""
    streams = await open_streams(server, client, 2)
    messages = [t.PubsubMessage.pb()(data=b"%d" % n, ordering_key=f"k{n % 10}") for n in range(200)]
    request = t.PublishRequest.pb()(topic=TOPIC, messages=messages)
    await client.call("Publisher/Publish", request, t.PublishResponse.pb())

    for stream in streams:
        received = await read(stream, 100)
        keys = {m.message.ordering_key for m in received}
        assert len(keys) == 5
        for key in keys:
            numbers = [int(m.message.data) for m in received if m.message.ordering_key == key]
            assert numbers == sorted(numbers)


async def test_a_failure_holds_its_key_up(server: EmulatorServer, client: Client) -> None:
    """Its stream gets nothing newer of the key until the whole run is settled; then in order."""
    [stream] = await open_streams(server, client, 1)
    await client.publish(b"0", b"1", ordering_key="k")
    first, second = await read(stream, 2)

    await client.modify([first], 0)
    await client.publish(b"2", ordering_key="k")
    await client.publish(b"other", ordering_key="another")
    assert bodies(await read(stream, 1)) == [b"other"]
    await client.acknowledge([second])

    assert bodies(await read(stream, 3)) == [b"0", b"1", b"2"]


async def test_a_busy_key_starves_no_other(client: Client) -> None:
    """A stream's turn goes round its keys: a message of another key is not behind a backlog."""
    for _ in range(3):
        await client.publish(*[b"x"] * 1000, ordering_key="busy")
    stream = await client.stream()
    received = await read(stream, 1000)
    await client.publish(b"y", ordering_key="quiet")

    received += await read(stream, 2001)

    assert [m.message.ordering_key for m in received].count("quiet") == 1
