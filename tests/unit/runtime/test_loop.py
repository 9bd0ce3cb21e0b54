"""Event loops on threads of their own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from convotic_celery.runtime.execution.loop import LoopThread, process_loop
from tests.support.waiting import wait_until

NAME: ContextVar[str] = ContextVar("name", default="nobody")


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    """A running loop thread."""
    thread = LoopThread("unit")
    thread.start()
    yield thread
    thread.stop()


def test_a_coroutine_runs_elsewhere_in_the_callers_context(thread: LoopThread) -> None:
    """run() blocks for the result; context variables come along."""
    NAME.set("caller")

    async def tell() -> tuple[str, int]:
        return NAME.get(), threading.get_ident()

    name, ident = thread.run(tell())

    assert name == "caller"
    assert ident == thread.thread_id != threading.get_ident()


def test_a_timeout_cancels_the_coroutine(thread: LoopThread) -> None:
    """Nothing goes on behind a caller who gave up."""
    begun, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def give_up() -> bool:
        """Say whether it had begun by then."""
        with pytest.raises(TimeoutError):
            thread.run(wait(), seconds=0.01)
        return begun.is_set()

    wait_until(give_up)
    wait_until(cancelled.is_set)


def test_start_and_stop_may_be_repeated(thread: LoopThread) -> None:
    """Both are idempotent, and a stopped loop says so."""
    thread.start()
    thread.stop()
    thread.stop()

    assert not thread.is_running
    with pytest.raises(RuntimeError, match="not running"):
        _ = thread.loop


def test_stop_cancels_what_is_left(thread: LoopThread) -> None:
    """Background tasks of handlers get their cancellation and may clean up."""
    cleaned = threading.Event()

    async def leave_behind() -> None:
        async def background() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.set()

        thread_tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    thread_tasks: list[asyncio.Task[None]] = []
    thread.run(leave_behind())
    thread.stop()

    assert cleaned.is_set()


def test_the_process_has_one_loop() -> None:
    """It is made on first use and kept."""
    assert process_loop() is process_loop()
    assert process_loop().is_running


@pytest.mark.parametrize(
    ("handle", "logged"),
    [("<Handle PollerCompletionQueue._handle_events(...)>", False), ("<Handle mine>", True)],
)
def test_grpcs_wake_up_race_is_not_logged(
    thread: LoopThread, caplog: pytest.LogCaptureFixture, handle: str, logged: bool
) -> None:
    """A BlockingIOError of grpc's poller is harmless; any other is not."""
    context = {
        "message": f"Exception in {handle}",
        "exception": BlockingIOError(),
        "handle": handle,
    }

    async def complain() -> None:
        asyncio.get_running_loop().call_exception_handler(context)

    with caplog.at_level(logging.ERROR, "asyncio"):
        thread.run(complain())

    assert bool(caplog.records) == logged


def test_a_handler_that_stops_the_loop_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """loop.stop() from inside is logged, and the loop runs again."""
    thread = LoopThread("unit")
    thread.start()

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)

    thread.run(stop())

    assert thread.run(asyncio.sleep(0, "still here")) == "still here"
    thread.stop()
    assert "A handler stopped the event loop" in caplog.text
