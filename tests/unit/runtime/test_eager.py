"""A task whose first step is made at once is in all else a task like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from convotic_celery.runtime.eager import start_task

VALUE: ContextVar[str] = ContextVar("value", default="outside")


def start(coroutine: Coroutine[Any, Any, None]) -> None:
    """Start a coroutine as the pool does: from a callback of the loop."""
    loop = asyncio.get_running_loop()
    loop.call_soon(start_task, loop, coroutine)


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_step_is_made_at_once_and_in_the_task() -> None:
    """Before anything else that the loop has to do; the current task is the same all the time."""
    seen: list[object] = []

    async def run() -> None:
        seen.append(asyncio.current_task())
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    def begin() -> None:
        start_task(loop, run())
        seen.append("begun")

    loop = asyncio.get_running_loop()
    loop.call_soon(begin)
    await turns(5)

    task, begun, again = seen
    assert begun == "begun"
    assert task is again is not None
    assert asyncio.current_task() is not task


async def test_its_context_is_its_own() -> None:
    """What it sets stays set, and nobody else sees it."""
    seen: list[str] = []

    async def run() -> None:
        VALUE.set("inside")
        await asyncio.sleep(0)
        seen.append(VALUE.get())

    start(run())
    await turns()

    assert seen == ["inside"]
    assert VALUE.get() == "outside"


async def test_many_may_wait_for_the_same_future_from_their_first_step() -> None:
    """The mark of a future that is being awaited is shared by all who await it."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    seen: list[str] = []

    async def run(number: int) -> None:
        seen.append(f"{number}: {await future}")

    for number in range(3):
        start(run(number))
    asyncio.get_running_loop().call_soon(future.set_result, "done")
    await turns()

    assert sorted(seen) == ["0: done", "1: done", "2: done"]


async def test_cancelling_before_the_loop_has_turned() -> None:
    """It is told at its first wait, and can clean up."""
    seen: list[str] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    start(run())
    await turns(5)

    assert seen == ["cleaned up"]


async def test_cancelling_what_has_ended_in_its_first_step() -> None:
    """Nothing happens, and nothing is logged."""
    problems: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, problem: problems.append(problem))

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    start(run())
    await turns(5)

    assert problems == []
    assert len(asyncio.all_tasks()) == 1
