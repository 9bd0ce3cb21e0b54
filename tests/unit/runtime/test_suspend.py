"""Plain code that waits for coroutines."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from convotic_celery.runtime.execution.suspend import can_suspend, run_suspendable, wait_for

NAME: ContextVar[str] = ContextVar("name", default="nobody")


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_plain_code_gets_a_coroutines_result() -> None:
    """wait_for returns what the coroutine returns."""
    result = await run_suspendable(lambda: wait_for(answer(1)) + wait_for(answer(2)))

    assert result == 3


async def test_two_suspended_functions_run_at_once() -> None:
    """Each waits for the other: that ends only if both are suspended together."""
    first, second = asyncio.Event(), asyncio.Event()

    async def meet(mine: asyncio.Event, other: asyncio.Event) -> bool:
        mine.set()
        return await other.wait()

    results = await asyncio.gather(
        run_suspendable(lambda: wait_for(meet(first, second))),
        run_suspendable(lambda: wait_for(meet(second, first))),
    )

    assert list(results) == [True, True]


async def test_errors_pass_through_both_ways() -> None:
    """An error of the coroutine is raised in the plain code, and one of that by run_suspendable."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("inside")

    def translate() -> None:
        try:
            wait_for(fail())
        except KeyError as error:
            raise ValueError("outside") from error

    with pytest.raises(ValueError, match="outside"):
        await run_suspendable(translate)


async def test_cancelling_reaches_the_coroutine() -> None:
    """Cancelling the task raises CancelledError where the coroutine waits."""
    waiting, cleaned = asyncio.Event(), asyncio.Event()

    async def wait_and_clean() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.create_task(run_suspendable(lambda: wait_for(wait_and_clean())))
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_timeouts_and_groups_work_inside() -> None:
    """asyncio.timeout and TaskGroup find their task."""

    async def use_both() -> str:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(answer(7))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        return f"{child.result()}"

    assert await run_suspendable(lambda: wait_for(use_both())) == "7"


async def test_context_variables_are_a_copy_of_the_callers() -> None:
    """The function sees the caller's values, and what it sets stays inside."""
    NAME.set("caller")

    async def rename() -> str:
        seen = NAME.get()
        await asyncio.sleep(0)
        NAME.set("inside")
        return seen

    seen = await run_suspendable(lambda: wait_for(rename()))

    assert (seen, NAME.get()) == ("caller", "caller")


def test_without_a_waiter_there_is_a_clear_error() -> None:
    """wait_for outside of run_suspendable is refused, and the coroutine is closed."""
    assert not can_suspend()
    with pytest.raises(RuntimeError, match="run_suspendable"):
        wait_for(answer(1))
