"""Crash by crash, with a key: each test is a row of the table in docs/idempotency.md."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from convotic_celery.context import Store
from convotic_celery.runtime.control import RunControl
from convotic_celery.runtime.key_guard import Claim, KeyGuard, KeyStore, Patience, drive_async
from convotic_celery.runtime.outcome import Duplicate, Postponed
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
        self._claims: list[Claim] = []
        self._others: list[World] = []

    def keyed_by(self, deduplicate: str) -> World:
        """Return the same with another key."""
        self._others.append(World(self.store, deduplicate))
        return self._others[-1]

    def close(self) -> None:
        """Have no lease renewed after the test."""
        for claim in self._claims:
            for lease in claim.leases:
                self._keys.keeper.drop(lease)
        for other in self._others:
            other.close()

    async def begin(self, message_id: str = "m-1") -> Claim | str:
        """Have a worker take the message; say why it does not run if it does not."""
        definition = define(deduplicate=self._deduplicate)
        guard = KeyGuard(definition, self._keys, Patience(busy=0))
        self._guard, self._control = guard, RunControl(30.0, lambda _: True)
        message = WorkerMessage(
            id=message_id, data={"id": 7}, attributes={}, published_at=datetime.now(UTC)
        )
        try:
            claim = await drive_async(guard.acquire(message, self._control), self._keys)
        except Duplicate:
            return "skipped"
        except Postponed:
            return "postponed"
        self._claims.append(claim)
        return claim

    async def succeed(self, claim: Claim | str) -> None:
        """Have the run return, and its success recorded."""
        assert isinstance(claim, Claim)
        await drive_async(self._guard.complete(claim, self._control), self._keys)

    async def kill(self, claim: Claim | str) -> None:
        """Kill the worker: nothing is renewed, and in time the lease ends."""
        assert isinstance(claim, Claim)
        for lease in claim.leases:
            self._keys.keeper.drop(lease)
        assert await self.begin() == "postponed"  # never beside the first
        assert claim.dedup_key is not None
        left = await self.store.async_client().pttl(claim.dedup_key)
        assert 0 < left <= 15_000
        await self.store.async_client().delete(claim.dedup_key)


async def in_the_middle(world: World) -> Claim | str:
    await world.kill(await world.begin())
    return await world.begin()


async def after_it_was_recorded(world: World) -> Claim | str:
    await world.succeed(await world.begin())
    return await world.begin()


async def repeated_publish(world: World) -> Claim | str:
    by_id = world.keyed_by("message.id")
    await by_id.succeed(await by_id.begin("m-1"))
    assert isinstance(await by_id.begin("m-2"), Claim)
    await world.succeed(await world.begin("m-1"))
    return await world.begin("m-2")


async def two_at_once(world: World) -> Claim | str:
    first, control = await world.begin(), world._control
    assert await world.begin() == "postponed"
    world._control = control
    await world.succeed(first)
    return await world.begin()


async def lost_data(world: World) -> Claim | str:
    await world.succeed(await world.begin())
    await world.store.async_client().flushall()
    return await world.begin()


async def before_it_began(world: World) -> Claim | str:
    return await world.begin()


Play: TypeAlias = Callable[[World], Awaitable[Claim | str]]


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(
            before_it_began,
            marks=pytest.mark.crash(
                1,
                "the worker, before the handler began",
                without_key="runs once",
                with_key="runs once",
            ),
        ),
        pytest.param(
            in_the_middle,
            marks=pytest.mark.crash(
                2,
                "the worker, in the middle of the handler",
                without_key="runs again",
                with_key="runs again, once its lease has ended; never beside the first",
            ),
        ),
        pytest.param(
            in_the_middle,
            marks=pytest.mark.crash(
                3,
                "the worker, after the handler returned and before that was recorded",
                without_key="runs again",
                with_key="runs again",
            ),
        ),
        pytest.param(
            after_it_was_recorded,
            marks=pytest.mark.crash(
                4,
                "the worker, after it was recorded and before the acknowledgement",
                without_key="runs again",
                with_key="skipped",
            ),
        ),
        pytest.param(
            after_it_was_recorded,
            marks=pytest.mark.crash(
                5,
                "the acknowledgement is lost",
                without_key="runs again",
                with_key="skipped",
            ),
        ),
        pytest.param(
            repeated_publish,
            marks=pytest.mark.crash(
                6,
                "the publisher repeats its publish",
                without_key="runs again",
                with_key="skipped with a business key, runs with `message.id`",
            ),
        ),
        pytest.param(
            two_at_once,
            marks=pytest.mark.crash(
                7,
                "Pub/Sub delivers to two workers at once",
                without_key="runs in both",
                with_key="runs in one, the other is skipped when that has succeeded",
            ),
        ),
        pytest.param(
            lost_data,
            marks=pytest.mark.crash(
                8,
                "the store loses its data",
                without_key="nothing changes",
                with_key="runs again, also what had succeeded",
            ),
        ),
    ],
)
async def test_the_row_says_what_happens(
    play: Play, store_url: str, request: pytest.FixtureRequest
) -> None:
    """The next delivery runs, or is skipped, as the row has it."""
    store = Store(store_url)
    world = World(store)
    try:
        outcome: Any = await play(world)
    finally:
        world.close()
        await store.aclose()
        store.close()
    mark = request.node.get_closest_marker("crash")
    assert mark is not None

    if "skipped" in mark.kwargs["with_key"]:
        assert outcome == "skipped"
    else:
        assert mark.kwargs["with_key"].startswith("runs")
        assert isinstance(outcome, Claim)
