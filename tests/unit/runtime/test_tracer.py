"""Our tracer does what Celery's does: each run is made with both, and all that is seen compared."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from celery import current_task, signals
from celery._state import _task_stack  # type: ignore[attr-defined]  # not in celery-types
from celery.app import trace
from celery.app.task import Context
from celery.exceptions import Reject

from convotic_celery.runtime.celery_internals import key_by_thread
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.pool.tracer import LoopTracer, loop_tracer
from convotic_celery.sdk.backoff import ConstantBackoff
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry
from tests.support.waiting import wait_until
from tests.unit.runtime.support import define, do_nothing, forever, make_app, make_request

_SIGNALS = {
    "prerun": signals.task_prerun,
    "postrun": signals.task_postrun,
    "success": signals.task_success,
    "retry": signals.task_retry,
    "failure": signals.task_failure,
    "internal error": signals.task_internal_error,
}

#: Differ between any two runs, or say which tracer it was.
_UNEQUAL = {"runtime", "traceback", "einfo", "signal"}


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the name of the worker that another test has set up in this process."""
    monkeypatch.setattr(trace, "_localized", [])


def celerys(tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's tracer as an agent would wrap it, so that it has to be used."""

    @wraps(tracer)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return tracer(*args, **kwargs)

    return wrapper


def make(pool: TaskPool, handler: Callable[..., Any], **options: Any) -> tuple[Any, Any, Any, Any]:
    """Return (task, request, message, eventer)."""
    definition = define(handler, **options)
    app = make_app(definition)
    app.conf.broker_connection_retry = False
    pool.app = app
    task: Any = app.tasks[definition.queue]
    task.__trace__ = trace.build_tracer(task.name, task, hostname="unit", app=app)
    return task, *make_request(app, definition, pool)


def describe(value: Any) -> Any:
    """Return what two runs can be compared by."""
    if isinstance(value, BaseException):
        return (repr(value), repr(value.__cause__))
    if isinstance(value, Context):
        return describe(vars(value))
    if isinstance(value, dict):
        return {k: describe(v) for k, v in value.items() if k not in _UNEQUAL}
    return re.sub(r" at 0x\w+", "", str(value))


@contextmanager
def listening(seen: list[Any]) -> Iterator[None]:
    """Note every signal, and which task was the current one meanwhile."""

    def listen(name: str) -> Callable[..., None]:
        def receive(sender: Any, **fields: Any) -> None:
            current = current_task.request.id if current_task else None
            seen.append((name, sender.name, current, describe(fields)))

        return receive

    receivers = {name: listen(name) for name in _SIGNALS}
    for name, signal in _SIGNALS.items():
        signal.connect(receivers[name], weak=False)
    try:
        yield
    finally:
        for name, signal in _SIGNALS.items():
            signal.disconnect(receivers[name])


def observe(
    caplog: pytest.LogCaptureFixture, error: BaseException | None, *, with_celerys: bool
) -> list[Any]:
    """Return all that can be seen of one run."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        seen.append(("request", describe(vars(current_task.request))))
        await asyncio.sleep(0)
        if error is not None:
            raise type(error)(*error.args) from (KeyError("cause") if error.args else None)

    pool = TaskPool(2)
    pool.start()
    caplog.clear()
    try:
        with listening(seen), caplog.at_level(logging.INFO, trace.logger.name):
            backoff = ConstantBackoff(delay=3)  # the same however long a run takes
            task, request, message, eventer = make(pool, handler, backoff=backoff)
            if with_celerys:
                task.__trace__ = celerys(task.__trace__)
            request.execute_using_pool(pool)
            wait_until(message.settled.is_set)
            wait_until(lambda: len(eventer.events) >= 2)
        is_ours = isinstance(pool._runners[task.name], LoopTracer)
    finally:
        pool.stop()
    assert is_ours is not with_celerys
    kind, *details = message.settlement
    seen.append((kind, [type(detail) for detail in details]))
    seen += [(name, describe(fields)) for name, fields in eventer.events]
    seen += [
        (r.levelname, r.msg, describe(r.args), r.exc_info is None)
        for r in caplog.records
        if r.name == trace.logger.name
    ]
    return seen


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("no"),
        Retry(delay=3),
        Drop("no use"),
        DeadLetter("never"),
        Reject("no", requeue=False),
        MemoryError("too much"),
        SystemExit(3),
    ],
    ids=repr,
)
def test_nothing_of_a_run_differs(
    caplog: pytest.LogCaptureFixture, error: BaseException | None
) -> None:
    """Signals and their arguments, the request, the log, the message's settlement, the events."""
    ours = observe(caplog, error, with_celerys=False)
    theirs = observe(caplog, error, with_celerys=True)

    assert ours == theirs
    assert [name for name, *_ in ours[:1]] == ["prerun"]


def test_a_cancelled_run_is_told_too(pool: TaskPool) -> None:
    """A begin that was signalled has an end that is, and Celery's stacks are empty."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        seen.append(current_task.name)
        await forever()

    with listening(seen):
        task, request, message, _ = make(pool, handler)
        job = request.execute_using_pool(pool)
        wait_until(lambda: len(seen) == 2)
        pool.terminate_job(job.number)
        wait_until(message.settled.is_set)
        wait_until(lambda: len(seen) == 3)

    assert [each[0] if isinstance(each, tuple) else each for each in seen] == [
        "prerun",
        task.name,
        "postrun",
    ]
    wait_until(lambda: stacks_of(task) == ({}, {}))


def stacks_of(task: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    tasks: Any = _task_stack
    return dict(tasks._local), dict(task.request_stack._local)


def test_each_run_has_its_own_current_task(pool: TaskPool) -> None:
    """And so has what it starts on the loop; its threads have none, as all of Celery's."""
    gate = asyncio.Event()
    seen: list[tuple[Any, ...]] = []

    def look() -> Any:
        return current_task.request.id if current_task else None

    async def look_later() -> Any:
        return look()

    async def handler(message: Any, ctx: Any) -> None:
        waiting.append(message.id)
        if len(waiting) == 2:
            gate.set()
        await gate.wait()
        child = await asyncio.create_task(look_later())
        seen.append((look(), child, await asyncio.to_thread(look)))

    waiting: list[str] = []
    task, first, *_ = make(pool, handler, concurrency=2)
    second, *_ = make_request(task.app, task.definition, pool)
    second.id = second.task_id = "another"
    second.request_dict["id"] = "another"
    for request in (first, second):
        request.execute_using_pool(pool)

    wait_until(lambda: len(seen) == 2)

    assert sorted(seen) == sorted([(first.id, first.id, None), ("another", "another", None)])
    wait_until(lambda: stacks_of(task) == ({}, {}))


def test_an_async_task_beside_it_keeps_its_own() -> None:
    """Celery's tracer runs that one, and has begun before ours is used for the first time."""
    stack: Any = _task_stack
    key_by_thread(stack)  # as in a new process
    gate = asyncio.Event()
    seen: list[Any] = []

    async def other(self: Any) -> None:
        seen.append(current_task.request.id)
        await gate.wait()
        seen.append((current_task.request.id, self.request.id))

    async def handler(message: Any, ctx: Any) -> None:
        gate.set()

    pool = TaskPool(2)
    pool.start()
    try:
        task, request, *_ = make(pool, handler)
        task.app.task(bind=True, shared=False, name="unit.other", ignore_result=True)(other)
        request_dict = {"id": "other", "ignore_result": True}
        arguments: Any = ("unit.other", "other", request_dict, ((), {}, None), None, None)
        pool.apply_async(trace.trace_task_ret, args=arguments, callback=seen.append)
        wait_until(lambda: len(seen) == 1)
        request.execute_using_pool(pool)
        wait_until(lambda: len(seen) == 3)
    finally:
        pool.stop()

    assert seen[:2] == ["other", ("other", "other")]
    wait_until(lambda: dict(stack._local) == {})


def test_a_task_that_is_called_inside_has_its_own_request(pool: TaskPool) -> None:
    """And afterwards the handler's is the current one again."""
    seen: list[Any] = []

    def name_task() -> str:
        return str(current_task.name)

    async def handler(message: Any, ctx: Any) -> None:
        called = task.app.task(shared=False, name="unit.called")(name_task)
        seen.extend([called(), current_task.name])

    task, request, message, _ = make(pool, handler)
    request.execute_using_pool(pool)
    wait_until(message.settled.is_set)

    assert seen == ["unit.called", task.name]


def test_an_agent_that_wraps_celerys_tracer_sees_each_run(
    pool: TaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Sentry's does, with a wrapper of ``build_tracer``."""
    seen: list[str] = []
    build = trace.build_tracer

    def wrapped_build(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = build(name, task, *args, **kwargs)

        def wrapped(task_id: str, *args: Any) -> Any:
            seen.append(task_id)
            return tracer(task_id, *args)

        return wrapped

    monkeypatch.setattr(trace, "build_tracer", wrapped_build)
    _, request, message, _ = make(pool, handler=do_nothing)
    request.execute_using_pool(pool)
    wait_until(message.settled.is_set)

    assert seen == [request.id]
    assert message.settlement == ("ack",)


def _wrap_call(task: Any) -> None:
    type(task).__call__ = celerys(type(task).__call__)


def _wrap_run(task: Any) -> None:
    task.run = celerys(task.run)


def _add_hook(task: Any) -> None:
    type(task).before_start = print


def _deduplicate(task: Any) -> None:
    task.app.conf.worker_deduplicate_successful_tasks = True


@pytest.mark.parametrize("change", [_wrap_call, _wrap_run, _add_hook, _deduplicate])
def test_what_only_celerys_tracer_does_is_left_to_it(
    pool: TaskPool, change: Callable[[Any], None]
) -> None:
    """A wrapped task, hooks of Celery's own, its own deduplication."""
    task, *_ = make(pool, do_nothing)
    assert loop_tracer(task) is not None

    change(task)

    assert loop_tracer(task) is None


def test_plain_handlers_and_other_tasks_have_none() -> None:
    """They don't run as coroutines, or may have results."""
    definition = define(print)
    app = make_app(definition)

    @app.task(shared=False, ignore_result=True)
    async def other() -> None:
        """Succeed."""

    assert loop_tracer(app.tasks[definition.queue]) is None
    assert loop_tracer(other) is None
