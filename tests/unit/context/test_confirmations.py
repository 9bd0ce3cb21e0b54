"""Waiting on a loop for what other threads confirm."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from convotic_celery.context.confirmations import wait_for, wait_for_all


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
        waiting = [asyncio.ensure_future(wait_for(each, 30)) for each in futures]
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

        async def wait(name: str, future: Future[str], seconds: float) -> None:
            ended.append(f"{name} {await wait_for(future, seconds)}")

        never: Future[str] = Future()
        await asyncio.gather(
            wait("long", never, 0.2), wait("short", never, 0.01), wait("middle", never, 0.1)
        )
        return ended

    assert asyncio.run(main()) == ["short False", "middle False", "long False"]


def test_one_that_is_cancelled_leaves_nothing_behind() -> None:
    """The others go on; the future itself is not cancelled."""

    async def main() -> tuple[bool, bool]:
        first, second = Future[str](), Future[str]()
        cancelled = asyncio.ensure_future(wait_for(first, 30))
        other = asyncio.ensure_future(wait_for(second, 30))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        first.set_result("late")
        second.set_result("1")
        return cancelled.cancelled(), await other

    assert asyncio.run(main()) == (True, True)


def test_none_to_wait_for_is_done_at_once() -> None:
    """Nothing to wait for, and some that are done already."""

    async def main() -> None:
        done = Future[str]()
        done.set_exception(ValueError("its own"))
        await wait_for_all([], 30)
        await wait_for_all([done, done], 30)

    asyncio.run(main())


def test_a_second_loop_of_a_thread_has_its_own() -> None:
    """``asyncio.run`` again in the same thread works as the first time."""
    for _ in range(2):
        future: Future[str] = Future()
        threading.Timer(0.01, future.set_result, ["1"]).start()

        assert asyncio.run(wait_for(future, 30))
