"""Whatever a handler's error does when it is looked at, its message is settled."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import asyncio
import errno
import io
import logging
import threading
from typing import Any

import pytest

from convotic_celery.runtime import celery_internals
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.execution import worker_faults
from convotic_celery.runtime.execution.worker_faults import find_worker_fault
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry
from tests.support.waiting import wait_until
from tests.unit.runtime.support import define, make_app, make_request, receive


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


def make(base: type[Exception], **methods: Any) -> type[Exception]:
    """Return a class of errors with these methods."""
    return type("Hostile", (base,), methods)


TEXT = {"__str__": broken, "__repr__": broken}
HOSTILE = {
    "str raises": make(Exception, **TEXT),
    "str is no text": make(Exception, __str__=lambda _: 7),
    "surrogates": make(Exception, __str__=lambda _: "\ud800" * 3000),
    "is neither true nor false": make(Exception, __bool__=broken, __len__=broken),
    "equals nothing": make(Exception, __eq__=broken, __hash__=broken),
    "does not pickle": make(Exception, __reduce__=broken, __reduce_ex__=broken),
    "has no attributes": make(Exception, __getattribute__=broken),
    "takes no attributes": make(Exception, __setattr__=broken),
    "retry without a text": make(Retry, **TEXT),
    "drop without a text": make(Drop, **TEXT),
    "dead letter without a text": make(DeadLetter, **TEXT),
}


def run(pool: Any, error: Exception, *, attempt: int, **options: Any) -> tuple[Any, ...]:
    """Run a handler that raises; return how its message is settled."""

    def handler(message: Any, ctx: Any) -> None:
        raise error

    definition = define(handler, max_retries=2, **options)
    app = make_app(definition)
    pool.app = app
    request, message, _ = make_request(app, definition, pool, attempt=attempt)
    request.execute_using_pool(pool)
    wait_until(message.settled.is_set)
    return message.settlement


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("kind", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_error_is_settled(any_pool: Any, kind: type[Exception], attempt: int) -> None:
    """As any error of its kind: a retry, and a dead letter at the end."""
    kinds = {1: "lapse", 3: "dead_letter"}
    if issubclass(kind, Drop):
        kinds = {1: "ack", 3: "ack"}
    if issubclass(kind, DeadLetter):
        kinds = {1: "dead_letter", 3: "dead_letter"}

    settlement = run(any_pool, kind(), attempt=attempt)

    assert settlement[0] == kinds[attempt]
    if settlement[0] == "dead_letter":
        assert settlement[1]["convotic-dead-letter-reason"]
        assert "Hostile" in str(settlement[1])


def test_a_log_that_cant_be_written_costs_no_message(any_pool: Any) -> None:
    """Logging then shows the error that is being handled, which raises when it is looked at."""
    closed = io.StringIO()
    closed.close()
    root = logging.getLogger()
    handler = logging.StreamHandler(closed)
    root.addHandler(handler)
    try:
        settlement = run(any_pool, HOSTILE["has no attributes"](), attempt=1)
    finally:
        root.removeHandler(handler)

    assert settlement[0] == "lapse"


def test_a_hook_that_exits_does_not_keep_a_message_from_its_dead_letter(any_pool: Any) -> None:
    """SystemExit of a hook is an error of the hook."""

    def hook(dead: Any, ctx: Any) -> None:
        raise SystemExit(3)

    settlement = run(any_pool, ValueError(), attempt=3, on_dead_letter=hook)

    assert settlement[0] == "dead_letter"


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_a_worker_without_descriptors_fails_no_message(
    any_pool: Any, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler stands still, then its message is deferred; one line says so, not two."""
    monkeypatch.setattr("convotic_celery.runtime.execution.attempt.PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(worker_faults, "_report", worker_faults._Report())
    error = ConnectionError("the store")
    error.__cause__ = OSError(code, "Too many open files")

    settlements = [run(any_pool, error, attempt=3) for _ in range(2)]

    assert settlements == [("defer", 1.0), ("defer", 1.0)]
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [each.name for each in errors] == [worker_faults.__name__]
    assert "no file descriptors left" in errors[0].getMessage()


def test_other_errors_are_no_fault_of_the_worker() -> None:
    """A file that is missing, a circle of causes, our own deferral."""
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one

    assert find_worker_fault(FileNotFoundError(errno.ENOENT, "no")) is None
    assert find_worker_fault(one) is None
    assert find_worker_fault(Deferred("busy", 1.0)) is None
    assert find_worker_fault(RuntimeError("can't start new thread")) is not None


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_one_exception_of_several_runs_costs_none_of_them(kind: str, pool: TaskPool) -> None:
    """A constant, or a failed future that many wait for: each message has its own outcome."""
    shared, go_on = ValueError("shared"), threading.Event()

    async def fail(message: Any, ctx: Any) -> None:
        raise shared

    def fail_plainly(message: Any, ctx: Any) -> None:
        raise shared

    async def hook(dead: Any, ctx: Any) -> None:
        if dead.message_id == "slow":
            await asyncio.to_thread(go_on.wait)

    def hook_plainly(dead: Any, ctx: Any) -> None:
        if dead.message_id == "slow":
            go_on.wait()

    handler, dead = (fail, hook) if kind == "async" else (fail_plainly, hook_plainly)
    definition = define(handler, on_dead_letter=dead, concurrency=2)
    app = make_app(definition)
    pool.app = app
    undo = celery_internals.spare_suspended_frames()
    try:
        messages = {}
        for name in ("slow", "quick"):
            received = receive(message_id=name)
            request, messages[name], _ = make_request(app, definition, pool, received, attempt=6)
            request.execute_using_pool(pool)
        wait_until(messages["quick"].settled.is_set)
        assert not messages["slow"].settlements
        go_on.set()
        wait_until(messages["slow"].settled.is_set)
    finally:
        undo()

    assert [each.settlement[0] for each in messages.values()] == ["dead_letter"] * 2
