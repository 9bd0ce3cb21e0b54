"""Seeks and snapshots of large backlogs: in slices, and whole if the server dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.broker import Broker
from convotic_emulator.engine.clock import ManualClock, SystemClock
from convotic_emulator.engine.lease import Consumer
from convotic_emulator.server import EmulatorServer
from convotic_emulator.services.checks import complete_subscription
from convotic_emulator.storage.store import Store
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client, bodies

SNAPSHOT = "projects/p/snapshots/orders.snap"
#: Three slices and a bit.
MESSAGES = 3300
FAR_US = 1 << 60


class Bench:
    """A broker on a file, which can die at any moment: what was not committed is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.stores: list[Store] = []
        self.broker = self._open()

    def _open(self) -> Broker:
        self.stores.append(Store(self.path))
        return Broker(self.stores[-1], self.clock, lambda _state: None)

    @property
    def store(self) -> Store:
        return self.stores[-1]

    @property
    def subscription(self) -> Any:
        return self.broker.registry.subscription(SUBSCRIPTION)

    def create(self) -> None:
        self.broker.registry.create("topic", t.Topic.pb()(name=TOPIC))
        proto = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC, retain_acked_messages=True)
        complete_subscription(proto)
        self.broker.registry.create("subscription", proto)

    def publish(self, count: int) -> set[int]:
        messages = [t.PubsubMessage.pb()(data=b"x") for _ in range(count)]
        ids = self.broker.publish(self.broker.registry.topic(TOPIC), messages)
        return {int(identifier) // 10**12 for identifier in ids}

    def take(self, leased: int = 100) -> set[int]:
        """Take what there is, and acknowledge all but the first."""
        taken = self.subscription.state.take(
            Consumer(), max_messages=10_000, max_bytes=1 << 30, lease_us=10**7, now_us=1
        )
        ack_ids = [self.subscription.state.ack_id(m) for m in taken[leased:]]
        self.subscription.state.acknowledge(ack_ids, 1)
        return {m.seq for m in taken}

    def snapshot(self) -> Any:
        self.broker.registry.create("snapshot", t.Snapshot.pb()(name=SNAPSHOT, topic=TOPIC))
        return self.broker.registry.snapshot(SNAPSHOT)

    def seek(self, time_us: int | None, source: Any = None) -> Iterator[None]:
        seek = self.broker.begin_seek(self.subscription, time_us=time_us, source=source)
        return self.broker.seek(seek)

    def die(self) -> None:
        """End without closing, and start again."""
        self.store.commit()
        self.broker = self._open()

    def close(self) -> None:
        for store in self.stores:
            store.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path / "data")
    opened.create()
    yield opened
    opened.close()


def slices(work: Iterator[None], count: int) -> None:
    for _ in range(count):
        next(work, None)


def finish(work: Iterator[None]) -> None:
    for _ in work:
        pass


@pytest.mark.parametrize("died_after", [0, 1, 3])
@pytest.mark.parametrize("target", ["future", "past", "snapshot"])
def test_a_seek_is_finished_after_a_crash(bench: Bench, target: str, died_after: int) -> None:
    """It was written down first; until it is done nothing is delivered, then all that it says."""
    snapshot = None
    if target == "snapshot":
        bench.publish(1500)
        bench.take(leased=0)
        snapshot = bench.snapshot()
        finish(bench.broker.copy(bench.subscription, snapshot))
        finish(bench.seek(0))  # brings back what the snapshot does not have
    published = bench.publish(MESSAGES)
    if target != "future":
        bench.take()
    time_us = {"future": FAR_US, "past": 0, "snapshot": None}[target]
    slices(bench.seek(time_us, snapshot), died_after)
    later = bench.publish(10)

    bench.die()

    assert bench.take() == set()
    [unfinished] = bench.store.seeks.unfinished()
    finish(bench.broker.seek(unfinished))
    expected = later if target == "future" else published | later
    state = bench.subscription.state
    assert bench.take() | set(state.outstanding) == expected
    assert bench.store.seeks.unfinished() == []
    assert state.backlog.waiting_units() == 0


def test_a_half_made_snapshot_is_gone_after_a_crash(bench: Bench) -> None:
    """Its creation was never confirmed; its rows are swept away."""
    bench.publish(MESSAGES)
    snapshot = bench.snapshot()
    slices(bench.broker.copy(bench.subscription, snapshot), 2)
    assert bench.store.counts.messages(snapshot.row.number) == 2000

    bench.die()

    assert not bench.broker.registry.snapshots
    while bench.store.sweep():
        pass
    assert bench.store.backlogs.oldest_us(snapshot.row.number) is None
    assert bench.store.counts.messages(bench.subscription.row.number) == MESSAGES


def test_a_snapshot_has_what_was_published_while_it_was_made(bench: Bench) -> None:
    """Once, and all that was there before."""
    bench.publish(MESSAGES)
    snapshot = bench.snapshot()
    work = bench.broker.copy(bench.subscription, snapshot)
    slices(work, 1)
    assert not snapshot.is_complete
    bench.publish(7)
    finish(work)

    assert snapshot.is_complete
    assert bench.store.counts.messages(snapshot.row.number) == MESSAGES + 7


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer(tmp_path / "data", clock=SystemClock()) as running:
        yield running


@pytest.fixture
async def client(server: EmulatorServer) -> AsyncIterator[Client]:
    async with Client(server) as connected:
        await connected.create(retain_acked_messages=True)
        for _ in range(20):
            await connected.publish(*[b"x" * 100] * 1000)
        yield connected


def begin_seek(client: Client, seconds: int) -> asyncio.Task[Any]:
    stamp = timestamp_pb2.Timestamp(seconds=seconds)
    request = t.SeekRequest.pb()(subscription=SUBSCRIPTION, time=stamp)
    return asyncio.create_task(client.call("Subscriber/Seek", request, t.SeekResponse.pb()))


async def test_others_have_their_turn_during_a_seek(client: Client) -> None:
    """What is published meanwhile is confirmed meanwhile, and delivered afterwards."""
    seek = begin_seek(client, 4_000_000_000)
    published = 0
    while not seek.done():
        await client.publish(b"later")
        published += 1
    await seek

    assert published > 2
    received = await client.pull()
    assert set(bodies(received)) == {b"later"}
    # Those that came before it had begun are gone.
    assert published - 2 <= len(received) <= published


async def test_a_seek_goes_on_when_its_client_has_gone(
    server: EmulatorServer, client: Client
) -> None:
    """And when the server is stopped in between: it is done after the next start."""
    seek = begin_seek(client, 4_000_000_000)
    await wait_until_async(server.engine.store.seeks.unfinished)
    seek.cancel()
    await server.stop(grace_seconds=0)

    await server.start()

    async with Client(server) as again:
        await wait_until_async(lambda: not server.engine.store.seeks.unfinished())
        assert await again.pull() == []
        number = server.engine.registry.subscription(SUBSCRIPTION).row.number
        assert server.engine.store.counts.messages(number) == 0


async def test_a_deletion_ends_a_seek(server: EmulatorServer, client: Client) -> None:
    """With NOT_FOUND, and without leftovers."""
    seek = begin_seek(client, 4_000_000_000)
    await wait_until_async(server.engine.store.seeks.unfinished)
    request = t.DeleteSubscriptionRequest.pb()(subscription=SUBSCRIPTION)
    await client.call("Subscriber/DeleteSubscription", request)

    with pytest.raises(grpc.RpcError) as gone:
        await seek

    assert gone.value.code() == grpc.StatusCode.NOT_FOUND
    assert server.engine.store.seeks.unfinished() == []


async def test_a_second_seek_waits_for_the_first(client: Client) -> None:
    """The last one counts."""
    seeks = begin_seek(client, 4_000_000_000), begin_seek(client, 1)
    await asyncio.gather(*seeks)

    assert len(await client.pull()) == 1000


async def test_a_detached_backlog_is_swept_away(server: EmulatorServer, client: Client) -> None:
    """The answer does not wait for that; acknowledgements have no effect any more."""
    received = await client.pull(10)
    number = server.engine.registry.subscription(SUBSCRIPTION).row.number
    request = t.DetachSubscriptionRequest.pb()(subscription=SUBSCRIPTION)
    response = t.DetachSubscriptionResponse.pb()
    await client.call("Publisher/DetachSubscription", request, response)
    assert server.engine.store.backlogs.oldest_us(number) is not None

    await client.acknowledge(received)

    await wait_until_async(lambda: server.engine.store.backlogs.oldest_us(number) is None)
    assert server.engine.store.counts.messages(number) == 0
