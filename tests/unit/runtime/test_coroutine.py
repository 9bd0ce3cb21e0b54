"""A task's coroutine for Celery's tracer: it runs on a loop while the tracer's thread waits."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from celery import Celery, current_task

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.execution.coroutine import explain_cancellation, run_coroutine
from convotic_celery.runtime.execution.current_run import CURRENT_RUN, Run
from convotic_celery.runtime.execution.loop import LoopThread, process_loop
from convotic_celery.runtime.execution.task import ConvoticTask

NUMBER: ContextVar[int] = ContextVar("number", default=-1)


@pytest.fixture
def app() -> Celery[Any]:
    """An app whose tasks may be async."""
    return Celery("unit", broker="memory://", task_cls=ConvoticTask, set_as_current=False)


def plain_task(app: Celery[Any]) -> Any:
    """Return a task to run coroutines for."""

    @app.task(shared=False)
    def do_nothing() -> None:
        """Return at once."""

    return do_nothing


def test_its_result_and_its_errors_are_the_callers(app: Celery[Any]) -> None:
    """What the coroutine returns or raises, the thread gets."""

    async def answer(value: int) -> float:
        await asyncio.sleep(0)
        return 1 / value

    task = plain_task(app)
    assert run_coroutine(task, answer(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        run_coroutine(task, answer(0))


def test_its_request_and_context_are_the_callers(app: Celery[Any]) -> None:
    """current_task and self.request are right inside; context variables are a copy."""

    @app.task(bind=True, shared=False)
    async def look(self: Any) -> tuple[Any, ...]:
        await asyncio.sleep(0)
        seen = (current_task.name, self.request.id, NUMBER.get())
        NUMBER.set(99)
        return seen

    NUMBER.set(7)
    look.push_request(id="its-id", called_directly=False)
    try:
        assert look() == (look.name, "its-id", 7)
    finally:
        look.pop_request()
    assert NUMBER.get() == 7


def test_timeouts_and_groups_work_inside(app: Celery[Any]) -> None:
    """asyncio.timeout and TaskGroup find their task."""

    @app.task(shared=False)
    async def use_them() -> str:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        return child.result()

    assert use_them() == "child"


def test_an_async_task_that_a_coroutine_calls_ends(app: Celery[Any]) -> None:
    """The call is a plain one, so it blocks its loop, but not without end."""

    @app.task(shared=False)
    async def inner() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    @app.task(shared=False)
    async def outer() -> tuple[Any, Any]:
        return inner(), threading.get_ident()

    here, there = outer()
    assert here != there == process_loop().thread_id


def test_cancelling_on_the_loop_reaches_the_thread(app: Celery[Any]) -> None:
    """As asyncio's CancelledError: concurrent.futures' own would be an error of the task."""

    async def cancel_itself() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        run_coroutine(plain_task(app), cancel_itself())


@pytest.mark.parametrize("kind", ["cancel", "GeneratorExit"])
def test_a_handler_that_ends_itself_strangely_has_failed(app: Celery[Any], kind: str) -> None:
    """It cancels its own task, or raises GeneratorExit: an error of its own, no lost process."""

    @app.task(shared=False)
    async def end_itself() -> None:
        if kind == "GeneratorExit":
            raise GeneratorExit
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(1)

    with pytest.raises(ConvoticError) as caught:
        end_itself()
    assert type(caught.value).__name__ in {"HandlerCancelled", "HandlerExited"}


def test_what_ends_with_its_loop_has_not_failed(app: Celery[Any]) -> None:
    """A cold stop of `threads` or `solo` cancels it: that is no error, which would be counted."""
    task, loop, begun = plain_task(app), LoopThread("unit"), threading.Event()
    loop.start()
    ended: list[BaseException] = []

    async def wait_for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    def work() -> None:
        CURRENT_RUN.set(Run(loop))
        try:
            run_coroutine(task, explain_cancellation(wait_for_ever()))
        except BaseException as error:  # noqa: BLE001 - the one that is looked at
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    loop.stop()
    thread.join()

    assert [type(error) for error in ended] == [asyncio.CancelledError]
