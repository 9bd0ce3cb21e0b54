"""The default pool: coroutines on one loop, plain functions in threads, and every way to end."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.app.trace import trace_task_ret
from celery.exceptions import SoftTimeLimitExceeded, Terminated, WorkerLostError

from convotic_celery.runtime.execution.task import ConvoticTask
from convotic_celery.runtime.pool.pool import TaskPool
from tests.support.waiting import PATIENCE, wait_until

NUMBER: ContextVar[int] = ContextVar("number", default=-1)


class Outcome:
    """Collects what a pool tells about its jobs."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.results: list[Any] = []
        self.errors: list[BaseException] = []
        self.timeouts: list[tuple[bool, float]] = []

    def on_accept(self, pid: int, _time: float) -> None:
        self.accepted.append(pid)

    def on_error(self, info: ExceptionInfo) -> None:
        error: Any = info.exception
        self.errors.append(getattr(error, "exc", error))

    def on_timeout(self, soft: bool, seconds: float) -> None:
        self.timeouts.append((soft, seconds))

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            "accept_callback": self.on_accept,
            "callback": self.results.append,
            "error_callback": self.on_error,
            "timeout_callback": self.on_timeout,
        }


@pytest.fixture
def app() -> Celery[Any]:
    """An app whose tasks may be async, and none of whose results are stored."""
    app: Celery[Any] = Celery(
        "unit", broker="memory://", task_cls=ConvoticTask, set_as_current=True
    )
    app.conf.task_ignore_result = True
    app.set_default()
    return app


def run_task(pool: TaskPool, task: Any, *args: Any, number: int = 0, **options: Any) -> Outcome:
    """Give a Celery task to the pool as Celery's Request does."""
    pool.app = task.app
    outcome = Outcome()
    task_id = f"id-{number}"
    pool.apply_async(
        trace_task_ret,
        args=(task.name, task_id, {"id": task_id}, (args, {}, None), None, None),
        correlation_id=task_id,
        **outcome.callbacks(),
        **options,
    )
    return outcome


def test_a_thousand_coroutines_wait_at_once(pool: TaskPool, app: Celery[Any]) -> None:
    """1,000 async tasks are all inside before the first one may leave."""
    inside: list[int] = []
    gate = asyncio.Event()

    @app.task(bind=True, shared=False)
    async def meet(self: Any, number: int) -> int:
        NUMBER.set(number)
        inside.append(number)
        if len(inside) == 1_000:
            gate.set()
        await gate.wait()
        assert self.request.id == f"id-{number}"
        assert NUMBER.get() == number
        return number

    outcomes = [run_task(pool, meet, number, number=number) for number in range(1_000)]

    wait_until(lambda: all(o.results for o in outcomes))
    assert [o.results[0][:2] for o in outcomes] == [(0, str(n)) for n in range(1_000)]
    assert len({o.accepted[0] for o in outcomes}) == 1_000


def test_plain_tasks_run_in_threads_while_the_loop_turns(pool: TaskPool, app: Celery[Any]) -> None:
    """A blocking task stops no coroutine, and runs on no event loop."""
    release = threading.Event()
    seen: list[str] = []

    @app.task(shared=False)
    def block() -> None:
        seen.append(threading.current_thread().name)
        release.wait(PATIENCE)

    @app.task(shared=False)
    async def pass_by() -> str:
        return "passed"

    blocked = run_task(pool, block)
    wait_until(lambda: seen)
    passed = run_task(pool, pass_by)
    wait_until(lambda: passed.results)
    assert not blocked.results
    release.set()

    wait_until(lambda: blocked.results)
    assert seen[0].startswith("convotic-thread")


def test_an_exception_is_the_tasks_failure(pool: TaskPool, app: Celery[Any]) -> None:
    """Celery's tracer keeps a task's error inside its result."""

    @app.task(shared=False)
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    outcome = run_task(pool, fail)

    wait_until(lambda: outcome.results)
    failed, info, _ = outcome.results[0]
    assert failed == 1
    assert isinstance(info.exception, ValueError)


@pytest.mark.parametrize("in_background", [False, True])
def test_sys_exit_does_not_end_the_loop(
    pool: TaskPool, app: Celery[Any], in_background: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit in a coroutine, or in a task it started, would end any event loop."""

    async def leave() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    @app.task(shared=False)
    async def leave_or_have_left() -> None:
        await (asyncio.create_task(leave()) if in_background else leave())

    @app.task(shared=False)
    async def stay() -> str:
        return "here"

    left = run_task(pool, leave_or_have_left)
    wait_until(lambda: left.results or left.errors)
    stayed = run_task(pool, stay)

    wait_until(lambda: stayed.results)
    assert left.results[0][0] == 1
    assert ("tried to end the process" in caplog.text) == in_background


def test_what_escapes_the_tracer_is_told(pool: TaskPool, app: Celery[Any]) -> None:
    """SystemExit in a thread is a lost job, not a lost thread."""

    @app.task(shared=False)
    def leave() -> None:
        raise SystemExit(3)

    outcome = run_task(pool, leave)

    wait_until(lambda: outcome.errors)
    assert isinstance(outcome.errors[0], WorkerLostError)


def test_a_failing_callback_kills_nothing(
    pool: TaskPool, app: Celery[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the worker's own callback is logged, and the pool goes on."""

    @app.task(shared=False)
    async def succeed() -> None:
        return None

    def break_down(_result: Any) -> None:
        raise RuntimeError("callback")

    pool.app = app
    pool.apply_async(
        trace_task_ret,
        args=(succeed.name, "x", {"id": "x"}, ((), {}, None), None, None),
        callback=break_down,
    )
    after = run_task(pool, succeed)

    wait_until(lambda: after.results)
    # Each runs in a thread of its own: the second may end before the first's error is written.
    wait_until(lambda: "callback failed" in caplog.text)


def test_the_soft_limit_cancels_and_raises_in_the_task(pool: TaskPool, app: Celery[Any]) -> None:
    """The coroutine is cancelled; its task sees SoftTimeLimitExceeded."""
    cleaned = threading.Event()

    @app.task(shared=False)
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    outcome = run_task(pool, wait, soft_timeout=0.02)

    wait_until(lambda: outcome.results)
    assert isinstance(outcome.results[0][1].exception, SoftTimeLimitExceeded)
    assert outcome.timeouts == [(True, 0.02)]
    assert cleaned.is_set()


def test_the_hard_limit_gives_the_job_up(pool: TaskPool, app: Celery[Any]) -> None:
    """The limit is the outcome, even of a coroutine that swallows its cancellation."""
    ended = threading.Event()

    @app.task(shared=False)
    async def refuse_to_stop() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return "too late"

    outcome = run_task(pool, refuse_to_stop, timeout=0.02)

    wait_until(ended.is_set)
    wait_until(lambda: not pool.info["running"])
    assert outcome.timeouts == [(False, 0.02)]
    assert not outcome.results
    assert not outcome.errors


def test_terminate_job_cancels_the_coroutine(pool: TaskPool, app: Celery[Any]) -> None:
    """revoke(terminate=True) ends a waiting coroutine as Terminated."""

    @app.task(shared=False)
    async def wait() -> None:
        await asyncio.Event().wait()

    outcome = run_task(pool, wait)
    (number,) = wait_until(lambda: outcome.accepted)
    pool.terminate_job(number)

    wait_until(lambda: outcome.errors)
    assert isinstance(outcome.errors[0], Terminated)


def test_a_cancelled_inner_future_is_the_tasks_failure(pool: TaskPool, app: Celery[Any]) -> None:
    """A task that awaits something cancelled fails; it is not taken for stopped."""

    @app.task(shared=False)
    async def await_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    outcome = run_task(pool, await_cancelled)

    wait_until(lambda: outcome.results)
    assert type(outcome.results[0][1].exception).__name__ == "HandlerCancelled"


def test_stop_waits_for_what_runs(pool: TaskPool, app: Celery[Any]) -> None:
    """A warm stop returns after the last coroutine and the last thread."""
    release = threading.Event()

    @app.task(shared=False)
    async def finish() -> str:
        await asyncio.to_thread(release.wait, PATIENCE)
        return "finished"

    @app.task(shared=False)
    def finish_in_thread() -> str:
        release.wait(PATIENCE)
        return "finished"

    outcomes = [run_task(pool, finish), run_task(pool, finish_in_thread)]
    wait_until(lambda: all(o.accepted for o in outcomes))
    stopper = threading.Thread(target=pool.stop)
    stopper.start()
    assert all(not o.results for o in outcomes)
    release.set()
    stopper.join(PATIENCE)

    assert not stopper.is_alive()
    assert [o.results[0][1] for o in outcomes] == ["'finished'", "'finished'"]


def test_queued_thread_jobs_are_handed_back_at_stop(app: Celery[Any]) -> None:
    """What waits for a thread is not run after stop, and its message is given back."""
    pool = TaskPool(1, app=app)
    pool.start()
    release, handed_back = threading.Event(), []

    class Request:
        def on_success(self, _result: Any) -> None:
            raise AssertionError("it must not run")

        def return_unrun(self) -> None:
            handed_back.append(self)

    @app.task(shared=False)
    def block() -> None:
        release.wait(PATIENCE)

    first = run_task(pool, block)
    wait_until(lambda: first.accepted)
    request = Request()
    pool.apply_async(trace_task_ret, args=(block.name,), callback=request.on_success)
    stopper = threading.Thread(target=pool.stop)
    stopper.start()
    wait_until(lambda: handed_back)
    release.set()
    stopper.join(PATIENCE)

    assert handed_back == [request]
    assert first.results


def test_a_job_after_stop_is_handed_back(pool: TaskPool, app: Celery[Any]) -> None:
    """A message that arrives while the pool is stopping is not lost."""
    handed_back = threading.Event()

    class Request:
        def on_success(self, _result: Any) -> None:
            """Never called."""

        def return_unrun(self) -> None:
            handed_back.set()

    @app.task(shared=False)
    async def never_run() -> None:
        raise AssertionError

    pool.app = app
    pool.stop()
    pool.apply_async(trace_task_ret, args=(never_run.name,), callback=Request().on_success)

    assert handed_back.is_set()


def test_terminate_does_not_wait_for_threads(pool: TaskPool, app: Celery[Any]) -> None:
    """A cold stop leaves a blocking thread behind."""
    release = threading.Event()

    @app.task(shared=False)
    def block() -> None:
        release.wait(PATIENCE)

    outcome = run_task(pool, block)
    wait_until(lambda: outcome.accepted)

    pool.terminate()

    assert not outcome.results
    release.set()
    wait_until(lambda: outcome.results)


def test_grow_and_shrink_change_the_threads(pool: TaskPool) -> None:
    """num_processes follows; it never falls below one."""
    pool.grow(3)
    grown = pool.num_processes
    pool.shrink(100)

    assert (grown, pool.num_processes) == (7, 1)


def test_a_blocked_loop_is_named(app: Celery[Any], caplog: pytest.LogCaptureFixture) -> None:
    """An async task that blocks the loop gets one warning that shows where it stands."""

    class WatchedPool(TaskPool):
        blocked_seconds = 0.3

    release = threading.Event()

    @app.task(shared=False)
    async def block_the_loop() -> None:
        await asyncio.sleep(0)
        release.wait(PATIENCE)

    pool = WatchedPool(1, app=app)
    pool.start()
    # By its name: on a busy machine the loop may stand still before the task has begun, too.
    warning = f"{block_the_loop.name} has blocked the event loop"
    with caplog.at_level(logging.WARNING, "convotic_celery.runtime.pool.watchdog"):
        outcome = run_task(pool, block_the_loop)
        wait_until(lambda: warning in caplog.text)
        release.set()
        wait_until(lambda: outcome.results)
    pool.stop()

    assert "in block_the_loop" in caplog.text
    assert caplog.text.count(warning) == 1


def test_looking_at_a_thread_collects_no_garbage() -> None:
    """Python 3.11 looks with a lock held: a finalizer that starts a thread would wait for ever."""
    script = """if True:
        import gc, threading
        from convotic_celery.runtime.pool.watchdog import find_frame

        class Finalized:
            def __del__(self):
                threading.Thread(target=str).start()

        for _ in range(50):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        gc.collect()
        gc.disable()
        for _ in range(3):
            ring = Finalized()
            ring.itself = ring
        del ring
        gc.set_threshold(20)  # fewer than the frames that are looked at
        gc.enable()
        assert find_frame(threading.get_ident()).f_code.co_name == "find_frame"
        assert gc.isenabled()
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_job_that_has_ended_is_freed_without_the_collector(
    pool: TaskPool, app: Celery[Any], is_async: bool
) -> None:
    """No ring of references keeps a message's objects: collecting them would take much time."""

    @app.task(shared=False)
    async def wait() -> None:
        await asyncio.sleep(0)

    @app.task(shared=False)
    def do() -> None:
        pass

    pool.app = app
    task = wait if is_async else do
    body: tuple[Any, ...] = ((), {}, None)
    gc.collect()
    gc.disable()
    try:
        jobs = [
            ref(
                pool.apply_async(
                    trace_task_ret, args=(task.name, "1", {"id": "1"}, body, None, None)
                )
            )
            for _ in range(10)
        ]
        wait_until(lambda: sum(job() is not None for job in jobs) <= 1)  # a thread keeps its last
    finally:
        gc.enable()


def test_what_is_called_on_the_loop_does_not_stop_what_comes_after(
    pool: TaskPool, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged; the next function is called, and on the loop."""
    called: list[bool] = []

    def fail() -> None:
        raise ValueError("no good")

    pool.call_soon(fail)
    pool.call_soon(lambda: called.append(pool.is_this_thread))
    wait_until(lambda: called)

    assert called == [True]
    assert not pool.is_this_thread
    assert "no good" in caplog.text
