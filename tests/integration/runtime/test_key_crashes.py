"""Crash by crash, what a key's guard does. With real workers: ``acceptance/test_crashes.py``."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from convotic_celery.context import Store
from convotic_celery.runtime.delivery.settlement import Deferred, KeySucceeded
from convotic_celery.runtime.delivery.steps import drive_async
from convotic_celery.runtime.execution.deadline import RunDeadline
from convotic_celery.runtime.locks.key_lock import HeldKeys, KeyLock, KeyStore, WaitLimits
from convotic_celery.sdk.message import WorkerMessage
from tests.support.valkey import run_valkey
from tests.unit.runtime.support import define


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    with run_valkey() as server:
        yield server.url


class World:
    """One handler with ``deduplicate``, its store, and workers that can be killed."""

    def __init__(self, store: Store, deduplicate: str = "data.id") -> None:
        self.store = store
        self._deduplicate = deduplicate
        self._keys = KeyStore(store, key_prefix=f"test-{uuid.uuid4().hex[:8]}:")
        self._claims: list[HeldKeys] = []
        self._others: list[World] = []

    def keyed_by(self, deduplicate: str) -> World:
        """Return the same with another key."""
        self._others.append(World(self.store, deduplicate))
        return self._others[-1]

    def close(self) -> None:
        """Have no lease renewed after the test."""
        for claim in self._claims:
            for lease in claim.locks:
                self._keys.renewer.drop(lease)
        for other in self._others:
            other.close()

    async def begin(self, message_id: str = "m-1") -> HeldKeys | str:
        """Have a worker take the message; say why it does not run if it does not."""
        definition = define(deduplicate=self._deduplicate)
        guard = KeyLock(definition, self._keys, WaitLimits(busy=0))
        self._guard, self._control = guard, RunDeadline(30.0, lambda _: True)
        message = WorkerMessage(
            id=message_id, data={"id": 7}, attributes={}, published_at=datetime.now(UTC)
        )
        try:
            claim = await drive_async(guard.acquire(message, self._control), self._keys)
        except KeySucceeded:
            return "skipped"
        except Deferred:
            return "postponed"
        self._claims.append(claim)
        return claim

    async def succeed(self, claim: HeldKeys | str) -> None:
        """Have the run return, and its success recorded."""
        assert isinstance(claim, HeldKeys)
        await drive_async(self._guard.complete(claim, self._control), self._keys)

    async def kill(self, claim: HeldKeys | str) -> None:
        """Kill the worker: nothing is renewed, and in time the lease ends."""
        assert isinstance(claim, HeldKeys)
        for lease in claim.locks:
            self._keys.renewer.drop(lease)
        assert await self.begin() == "postponed"  # never beside the first
        assert claim.dedup_key is not None
        left = await self.store.async_client().pttl(claim.dedup_key)
        assert 0 < left <= 15_000
        await self.store.async_client().delete(claim.dedup_key)


async def in_the_middle(world: World) -> HeldKeys | str:
    await world.kill(await world.begin())
    return await world.begin()


async def after_it_was_recorded(world: World) -> HeldKeys | str:
    await world.succeed(await world.begin())
    return await world.begin()


async def repeated_publish(world: World) -> HeldKeys | str:
    by_id = world.keyed_by("message.id")
    await by_id.succeed(await by_id.begin("m-1"))
    assert isinstance(await by_id.begin("m-2"), HeldKeys)
    await world.succeed(await world.begin("m-1"))
    return await world.begin("m-2")


async def two_at_once(world: World) -> HeldKeys | str:
    first, control = await world.begin(), world._control
    assert await world.begin() == "postponed"
    world._control = control
    await world.succeed(first)
    return await world.begin()


async def lost_data(world: World) -> HeldKeys | str:
    await world.succeed(await world.begin())
    await world.store.async_client().flushall()
    return await world.begin()


async def before_it_began(world: World) -> HeldKeys | str:
    return await world.begin()


Play: TypeAlias = Callable[[World], Awaitable[HeldKeys | str]]


@pytest.mark.parametrize(
    ("play", "is_skipped"),
    [
        (before_it_began, False),
        (in_the_middle, False),
        (after_it_was_recorded, True),
        (repeated_publish, True),
        (two_at_once, True),
        (lost_data, False),
    ],
)
async def test_the_next_delivery_is_run_or_skipped(
    play: Play, store_url: str, *, is_skipped: bool
) -> None:
    """By what the store knows of the key."""
    store = Store(store_url)
    world = World(store)
    try:
        outcome: Any = await play(world)
    finally:
        world.close()
        await store.aclose()
        store.close()

    assert outcome == "skipped" if is_skipped else isinstance(outcome, HeldKeys)
