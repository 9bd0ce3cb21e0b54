"""A disk without room: what the server answers, and that it goes on when there is some."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from convotic_emulator.storage import database
from tests.support.waiting import PATIENCE, wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client, bodies


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def fill_disk(server: EmulatorServer, spare_pages: int = 0) -> None:
    """Let the data file grow no more than that, by SQLite's own limit."""
    connection = server.engine.store.database._connection  # no disk of a test's own
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + spare_pages}")


def clear_disk(server: EmulatorServer) -> None:
    """Let the data file grow."""
    connection = server.engine.store.database._connection  # as above
    connection.execute("PRAGMA max_page_count = 1000000")


async def can_publish(client: Client, body: bytes) -> bool:
    """Publish; say whether it was confirmed."""
    try:
        await client.publish(body)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_full_disk_is_waited_for(tmp_path: Path, clock: ManualClock) -> None:
    """Nothing confirmed is lost, nothing refused is there, attempts stay; then all goes on."""
    policy = {"dead_letter_topic": TOPIC, "max_delivery_attempts": 5}
    async with (
        EmulatorServer(tmp_path / "data", clock=clock) as server,
        Client(server) as client,
        Client(server) as subscriber,
    ):
        await client.create(dead_letter_policy=policy)
        await client.publish(b"kept", b"leased", b"acknowledged")
        received = await client.pull()
        await client.modify(received[:1], 0)
        await client.acknowledge(received[2:])
        stream = await subscriber.stream()
        assert bodies((await stream.read()).received_messages) == [b"kept"]
        fill_disk(server)

        with pytest.raises(grpc.aio.AioRpcError, match="full") as refused:
            await client.publish(b"x" * 500_000)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        refused_but_delivered = await stream.read()
        assert len(refused_but_delivered.received_messages) == 1
        assert await stream.code() == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.acknowledge(received[1:2])
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE

        clear_disk(server)
        published: bool = await wait_until_async(lambda: can_publish(client, b"new"))
        assert published
        [new] = await client.pull()
        assert new.message.data == b"new"
        ids = {m.message.message_id for m in refused_but_delivered.received_messages}
        assert new.message.message_id not in ids
        await client.acknowledge(received[1:2])
        clock.advance(11)
        again: list[Any] = await wait_until_async(client.pull)
        assert sorted((m.message.data, m.delivery_attempt) for m in again) == [
            (b"kept", 3),
            (b"new", 2),
        ]


async def test_a_delivery_that_can_not_be_written_is_none(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A waiting stream ends, and the messages come when there is room for their leases."""
    async with EmulatorServer(tmp_path / "data", clock=clock) as server, Client(server) as client:
        await client.create()
        await client.publish(*[b"x"] * 1000)
        fill_disk(server)

        stream = await client.stream()

        assert await stream.code() == grpc.StatusCode.UNAVAILABLE
        clear_disk(server)
        published: bool = await wait_until_async(lambda: can_publish(client, b"y"))
        assert published
        assert len(await client.pull()) == 1000


async def test_a_seek_goes_on_after_a_full_disk(tmp_path: Path, clock: ManualClock) -> None:
    """Its client gets UNAVAILABLE, and the subscription gets all that was sought."""
    async with EmulatorServer(tmp_path / "data", clock=clock) as server, Client(server) as client:
        topic = t.Topic.pb()(name=TOPIC)
        topic.message_retention_duration.seconds = 3600
        await client.call("Publisher/CreateTopic", topic, t.Topic.pb())
        for _ in range(20):
            await client.publish(*[b"x" * 1000] * 500)
        subscription = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC)
        await client.call("Subscriber/CreateSubscription", subscription, t.Subscription.pb())
        fill_disk(server, spare_pages=1000)

        seek = t.SeekRequest.pb()(subscription=SUBSCRIPTION)
        seek.time.seconds = 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.call("Subscriber/Seek", seek, t.SeekResponse.pb())
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE

        clear_disk(server)
        number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
        await wait_until_async(lambda: server.engine.store.counts.messages(number) == 10_000)
        assert len(await wait_until_async(client.pull)) == 1000


async def test_a_nearly_full_disk_takes_no_more(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESOURCE_EXHAUSTED for publishes; what is there can be consumed, that needs room too."""
    async with EmulatorServer(tmp_path / "data", clock=clock) as server, Client(server) as client:
        await client.create()
        await client.publish(b"x")
        monkeypatch.setattr(database, "RESERVED_BYTES", 1 << 62)
        monkeypatch.setattr(server.engine.store.database, "_roomy_until", 0.0)

        with pytest.raises(grpc.aio.AioRpcError, match="free") as refused:
            await client.publish(b"y")

        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await client.acknowledge(await client.pull())
        monkeypatch.undo()
        await client.publish(b"z")
        assert bodies(await client.pull()) == [b"z"]


async def test_a_cancelled_request_cancels_no_other() -> None:
    """They wait for the same commit: a client that hangs up must not take others' answers along."""
    async with EmulatorServer() as server:
        commits = server.engine.commits
        await commits.committed()
        server.engine.store.database.write_meta("test", 1)

        async def wait() -> str:
            await commits.committed()
            return "committed"

        given_up, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)  # both wait now
        given_up.cancel()

        assert await asyncio.wait_for(other, PATIENCE) == "committed"
        with pytest.raises(asyncio.CancelledError):
            await given_up
