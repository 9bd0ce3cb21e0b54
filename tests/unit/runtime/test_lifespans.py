"""Lifespans: entered once, before the first run; left at the end, by the task that entered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.execution.lifespans import Lifespans
from convotic_celery.sdk.handler import HandlerDefinition
from convotic_celery.sdk.lifespan import Lifespan
from tests.unit.runtime.support import define


class Pool:
    """What a module opens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failures = 0

    @asynccontextmanager
    async def live(self) -> AsyncIterator[Pool]:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("not yet")
        async with asyncio.timeout(None):  # must be left by the task that entered it
            self.events.append("open")
            yield self
            self.events.append("close")


def with_lifespan(lifespan: Lifespan) -> HandlerDefinition:
    return replace(define(), lifespan=lifespan)


async def test_many_runs_share_one_lifespan() -> None:
    """Entered once, however many begin at once; left once."""
    pool, lifespans = Pool(), Lifespans()
    definition = with_lifespan(pool.live)

    found = await asyncio.gather(*(lifespans.enter(definition) for _ in range(10)))
    await lifespans.aclose()
    await lifespans.aclose()

    assert all(each is pool for each in found)
    assert pool.events == ["open", "close"]


async def test_a_lifespan_that_fails_is_tried_again() -> None:
    """The run that needed it fails; the next one may succeed."""
    pool, lifespans = Pool(), Lifespans()
    pool.failures = 1
    definition = with_lifespan(pool.live)

    with pytest.raises(ConnectionError, match="not yet"):
        await lifespans.enter(definition)
    assert await lifespans.enter(definition) is pool
    await lifespans.aclose()


class Odd(BaseException):
    """An error that is no Exception."""


@pytest.mark.parametrize("raised", [SystemExit, asyncio.CancelledError, GeneratorExit, Odd])
async def test_whatever_a_lifespan_raises_is_its_failure(raised: type[BaseException]) -> None:
    """``sys.exit("no database")`` would end the event loop, with every other handler on it."""

    @asynccontextmanager
    async def live() -> AsyncIterator[None]:
        raise raised("no database")
        yield

    lifespans, definition = Lifespans(), with_lifespan(live)
    for _ in range(2):  # the next run tries again
        with pytest.raises(ConvoticError, match="no database"):
            await lifespans.enter(definition)


async def test_a_lifespan_that_is_being_entered_is_left_by_its_loop() -> None:
    """What waits for it is cancelled with it."""

    @asynccontextmanager
    async def live() -> AsyncIterator[None]:
        await asyncio.get_running_loop().create_future()
        yield

    lifespans = Lifespans()
    entering = asyncio.ensure_future(lifespans.enter(with_lifespan(live)))
    await asyncio.sleep(0)
    await lifespans.aclose()

    with pytest.raises(asyncio.CancelledError):
        await entering


async def test_plain_handlers_share_the_home_loop_s() -> None:
    """From a thread, they get what async handlers have."""
    pool, lifespans = Pool(), Lifespans()
    lifespans.use_loop(asyncio.get_running_loop())
    definition = with_lifespan(pool.live)

    asynchronous = await lifespans.enter(definition)
    plain = await asyncio.to_thread(lifespans.enter_sync, definition)
    await asyncio.to_thread(lifespans.close)

    assert plain is asynchronous
    assert pool.events == ["open", "close"]


def test_a_home_loop_that_was_closed_is_home_no_more() -> None:
    """After the end of its pool plain handlers have the process's loop, as before it."""
    pool, lifespans = Pool(), Lifespans()
    ended = asyncio.new_event_loop()
    lifespans.use_loop(ended)
    ended.close()

    try:
        assert lifespans.enter_sync(with_lifespan(pool.live)) is pool
    finally:
        lifespans.close()

    assert pool.events == ["open", "close"]
