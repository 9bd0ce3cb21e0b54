"""Waiting on a loop for what other threads confirm."""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import Future

import pytest

from convotic_celery.context.confirmations import wait_for, wait_for_all
from tests.support.waiting import PATIENCE


async def waits(answer: Future[str], seconds: float) -> bool:
    return await wait_for(answer, seconds)


def test_many_that_are_confirmed_together_wake_the_loop_once() -> None:
    """A hundred confirmations from another thread: one wake-up, and nobody is forgotten."""
    wakes = 0

    async def main() -> list[bool]:
        nonlocal wakes
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def count(*args: object) -> object:
            nonlocal wakes
            wakes += 1
            return wake(*args)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = count  # type: ignore[assignment]
        futures: list[Future[str]] = [Future() for _ in range(100)]
        waiting = [asyncio.ensure_future(waits(each, PATIENCE)) for each in futures]
        await asyncio.sleep(0)

        def confirm() -> None:
            for each in futures:
                each.set_result("1")

        thread = threading.Thread(target=confirm)
        thread.start()
        thread.join()
        return list(await asyncio.gather(*waiting))

    assert asyncio.run(main()) == [True] * 100
    assert wakes == 1


def test_each_waits_as_long_as_it_was_asked_to() -> None:
    """A shorter limit that comes later ends earlier; one without an answer ends, too."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def wait(name: str, seconds: float) -> None:
            never: Future[str] = Future()
            ended.append(f"{name} {await wait_for(never, seconds)}")

        await asyncio.gather(wait("long", 1), wait("short", 0.01), wait("middle", 0.5))
        return ended

    assert asyncio.run(main()) == ["short False", "middle False", "long False"]


def test_limits_that_have_passed_together_end_in_their_order() -> None:
    """On a loop that was busy for longer than all of them."""

    async def main() -> list[float]:
        ended: list[float] = []

        async def wait(seconds: float) -> None:
            await wait_for(Future(), seconds)
            ended.append(seconds)

        waiting = [asyncio.ensure_future(wait(seconds)) for seconds in (0.03, 0.01, 0.02)]
        await asyncio.sleep(0)
        threading.Event().wait(0.04)  # the loop's own thread
        await asyncio.gather(*waiting)
        return ended

    assert asyncio.run(main()) == [0.01, 0.02, 0.03]


def test_one_that_is_cancelled_leaves_nothing_behind() -> None:
    """The others go on; the future itself is not cancelled."""

    async def main() -> tuple[bool, bool]:
        first, second = Future[str](), Future[str]()
        cancelled = asyncio.ensure_future(waits(first, PATIENCE))
        other = asyncio.ensure_future(waits(second, PATIENCE))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        first.set_result("late")
        second.set_result("1")
        return cancelled.cancelled(), await other

    assert asyncio.run(main()) == (True, True)


def test_one_that_is_cancelled_is_forgotten_when_its_time_is_over() -> None:
    """An answer that never comes is not kept for as long as the loop runs."""

    async def main() -> weakref.ref[Future[str]]:
        never = Future[str]()
        cancelled = asyncio.ensure_future(waits(never, 0.01))
        await asyncio.sleep(0)
        cancelled.cancel()
        await waits(Future(), 0.02)
        return weakref.ref(never)

    assert asyncio.run(main())() is None


def test_an_answer_is_waited_for_by_one_at_a_time() -> None:
    """A second one would take the first one's place; after the first has given up it may."""

    async def main() -> bool:
        answer = Future[str]()
        first = asyncio.ensure_future(waits(answer, PATIENCE))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another coroutine"):
            await waits(answer, PATIENCE)
        first.cancel()
        await asyncio.sleep(0)
        second = asyncio.ensure_future(waits(answer, PATIENCE))
        await asyncio.sleep(0)
        answer.set_result("1")
        return await second

    assert asyncio.run(main())


def test_none_to_wait_for_is_done_at_once() -> None:
    """Nothing to wait for, and some that are done already."""

    async def main() -> None:
        done = Future[str]()
        done.set_exception(ValueError("its own"))
        await wait_for_all([], PATIENCE)
        await wait_for_all([done, done], PATIENCE)

    asyncio.run(main())


def test_a_second_loop_of_a_thread_has_its_own() -> None:
    """``asyncio.run`` again in the same thread works as the first time."""
    for _ in range(2):
        future: Future[str] = Future()
        threading.Timer(0.01, future.set_result, ["1"]).start()

        assert asyncio.run(waits(future, PATIENCE))
