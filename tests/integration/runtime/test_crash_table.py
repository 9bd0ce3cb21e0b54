"""The table of crashes in docs/idempotency.md: each row is played, and must say what happens."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from convotic_celery.context import Store
from convotic_celery.runtime.control import RunControl
from convotic_celery.runtime.key_guard import Claim, KeyGuard, KeyStore, Patience, drive_async
from convotic_celery.runtime.outcome import Duplicate, Postponed
from convotic_celery.sdk.message import WorkerMessage
from tests.support.valkey import run_valkey
from tests.unit.runtime.support import define

PAGE = Path(__file__).resolve().parents[3] / "docs" / "idempotency.md"


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    with run_valkey() as server:
        yield server.connection_url


class World:
    """One handler with ``deduplicate``, its store, and workers that can be killed."""

    def __init__(self, store: Store, deduplicate: str = "data.id") -> None:
        self.store = store
        self._deduplicate = deduplicate
        self._keys = KeyStore(store, key_prefix=f"test-{uuid.uuid4().hex[:8]}:")

    def keyed_by(self, deduplicate: str) -> World:
        """Return the same with another key."""
        return World(self.store, deduplicate)

    async def begin(self, message_id: str = "m-1") -> Claim | str:
        """Have a worker take the message; say why it does not run if it does not."""
        definition = define(deduplicate=self._deduplicate)
        guard = KeyGuard(definition, self._keys, Patience(busy=0))
        self._guard, self._control = guard, RunControl(30.0, lambda _: True)
        message = WorkerMessage(
            id=message_id, data={"id": 7}, attributes={}, published_at=datetime.now(UTC)
        )
        try:
            return await drive_async(guard.acquire(message, self._control), self._keys)
        except Duplicate:
            return "skipped"
        except Postponed:
            return "postponed"

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


Row: TypeAlias = Callable[[World], Awaitable[Claim | str]]

#: What each row is about -> what is played, and whether the next delivery runs.
ROWS: dict[str, tuple[Row, bool]] = {
    "before the handler began": (lambda world: world.begin(), True),
    "in the middle of the handler": (in_the_middle, True),
    "after the handler returned and before that was recorded": (in_the_middle, True),
    "after it was recorded and before the acknowledgement": (after_it_was_recorded, False),
    "the acknowledgement is lost": (after_it_was_recorded, False),
    "the publisher repeats its publish": (repeated_publish, False),
    "Pub/Sub delivers to two workers at once": (two_at_once, False),
    "the store loses its data": (lost_data, True),
}


def read_table() -> dict[str, str]:
    """Return each row's first and last cell."""
    section = PAGE.read_text().partition("## Crash by crash")[2]
    rows = re.findall(r"^\| (.+?) \|.*\| (.+?) \|$", section, re.MULTILINE)
    return {what: says for what, says in rows if set(what) != {"-"} and "dies" not in what}


def test_each_row_of_the_page_is_played() -> None:
    """No row without its test, no test without its row."""
    played = {row: [text for text in read_table() if text.endswith(row)] for row in ROWS}

    assert [row for row, found in played.items() if len(found) != 1] == []
    assert len(read_table()) == len(ROWS)


@pytest.mark.parametrize("row", ROWS)
async def test_the_row_says_what_happens(row: str, store_url: str) -> None:
    """The next delivery runs, or is skipped."""
    play, runs = ROWS[row]
    store = Store(store_url)
    try:
        outcome: Any = await play(World(store))
    finally:
        await store.aclose()
        store.close()
    (says,) = [says for text, says in read_table().items() if text.endswith(row)]

    assert isinstance(outcome, Claim) if runs else outcome == "skipped"
    assert says.startswith(("runs", "what had succeeded may run")) if runs else "skipped" in says
