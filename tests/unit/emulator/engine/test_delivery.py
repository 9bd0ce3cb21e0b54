"""Who gets what of the messages that several streams wait for."""

from __future__ import annotations

from typing import Any

from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, Client


async def read(stream: Any, count: int) -> list[Any]:
    """Return the next messages of a stream, ``count`` at least."""
    received: list[Any] = []
    while len(received) < count:
        received += (await stream.read()).received_messages
    return received


async def test_a_frozen_subscriber_does_not_get_its_share_again() -> None:
    """After its leases have lapsed it gets one message until it reacts; others get the rest."""
    clock = ManualClock()
    async with EmulatorServer(clock=clock) as server, Client(server) as client:
        await client.create()
        frozen, live = await client.stream(), await client.stream()
        state = server.engine.registry.subscription(SUBSCRIPTION).state
        waiting = server.engine.dispatcher._waiting
        await wait_until_async(lambda: len(waiting.get(state, ())) == 2)
        await client.publish(*[b"x"] * 100)
        await read(frozen, 50)
        settled = await read(live, 50)
        await client.acknowledge(settled)

        clock.advance(11)
        again = await read(live, 49)
        await client.acknowledge(again)

        assert len(again) == 49
        [probe] = await read(frozen, 1)
        request = t.StreamingPullRequest.pb()(ack_ids=[probe.ack_id])
        await frozen.write(request)  # it is alive
        await wait_until_async(lambda: not state.outstanding)
        await client.publish(*[b"x"] * 100)
        assert len(await read(frozen, 50)) == 50


async def test_a_subscriber_that_lets_leases_lapse_keeps_its_share() -> None:
    """It has set the deadline itself: that is a retry, and no silence."""
    clock = ManualClock()
    async with EmulatorServer(clock=clock) as server, Client(server) as client:
        await client.create()
        streams = [await client.stream() for _ in range(2)]
        state = server.engine.registry.subscription(SUBSCRIPTION).state
        waiting = server.engine.dispatcher._waiting
        await wait_until_async(lambda: len(waiting.get(state, ())) == 2)
        await client.publish(*[b"x"] * 10)
        for stream in streams:
            await client.modify(await read(stream, 5), 3)

        clock.advance(4)

        assert [len(await read(stream, 5)) for stream in streams] == [5, 5]
