"""What changes by itself, read on demand and cached for a while."""

from __future__ import annotations

import asyncio
import threading

from convotic_celery.dashboard.figures import Cached
from tests.support.waiting import PATIENCE, wait_until_async


async def test_what_expires_while_it_is_read_is_read_again() -> None:
    """Or what was read before a publish would count as fresh after it."""
    begun, may_end = threading.Event(), threading.Event()
    values = iter(("before", "after"))

    def read() -> str:
        value = next(values)
        begun.set()
        may_end.wait(PATIENCE)
        return value

    cached = Cached(read, lambda: 3600.0)
    first = asyncio.create_task(cached.get())
    await asyncio.to_thread(begun.wait, PATIENCE)

    cached.expire()
    may_end.set()

    await first

    async def is_read_again() -> bool:
        return (await cached.get()).value == "after"

    again: bool = await wait_until_async(is_read_again)
    assert again
    cached.close()
