"""A handler's own request class does what Celery's does, but for what no handler needs."""

from __future__ import annotations

import inspect
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from celery.worker import request as celery_request
from celery.worker import state
from celery.worker.request import Request

from convotic_celery.runtime.celery_internals import make_request_class
from convotic_celery.runtime.delivery.payload import as_task_body
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.worker.request import HandlerRequest
from tests.unit.runtime.support import RecordingEventer, define, make_app, make_request

POOL = SimpleNamespace(apply_async=None, terminate_job=None)


def seen_of(request: Any, eventer: RecordingEventer, message: Any) -> Any:
    events = [(kind, {**fields, "runtime": None}) for kind, fields in eventer.events]
    lists = (state.requests, state.active_requests, state.reserved_requests)
    counts = (dict(state.total_count), list(state.all_total_count))
    held = (message.held_seconds, request._held_until > time.monotonic())
    return (
        events,
        [request.id in each or request in each for each in lists],
        counts,
        held,
        (request.worker_pid, time.time() - request.time_start < 60, request.acknowledged),
        message.settlements,
    )


def make_as_celery(task: Any, message: Any, eventer: Any, pool: Any = POOL) -> Any:
    made = make_request_class(HandlerRequest, task, pool, "unit", eventer)
    return made(
        message,
        app=task.app,
        task=task,
        hostname="unit",
        eventer=eventer,
        body=as_task_body(message.body),
        headers=message.headers,
        decoded=True,
    )


def test_a_request_has_what_celerys_constructor_gives_it() -> None:
    """Each attribute, for whoever uses one: signals, agents of monitors, Celery itself."""
    definition = define()
    app = make_app(definition)
    ours, message, eventer = make_request(app, definition, POOL)
    theirs = make_as_celery(app.tasks[definition.queue], message, eventer)
    names = {name for name in {*dir(Request), *vars(theirs)} if not name.startswith("__")}

    values: dict[str, Any] = {
        name: (getattr(ours, name, None), getattr(theirs, name, None)) for name in names
    }

    for name, (our, their) in values.items():
        if name == "time_limits":
            assert tuple(our) == tuple(their)
        elif name == "_context":
            assert vars(our) == vars(their)
        elif not inspect.ismethod(their):
            assert our == their, name
    assert {"_argsrepr", "_ignore_result", "_request_dict", "_payload"} < names


def test_our_pool_gets_what_celerys_request_gives_it(pool: TaskPool) -> None:
    """The same call with the same callbacks and limits; a revoked one is refused."""
    definition = define()
    app = make_app(definition)
    pool.app = app
    task: Any = app.tasks[definition.queue]
    task.time_limit, task.soft_time_limit = 40, 30
    request, message, eventer = make_request(app, definition, pool)
    calls: list[Any] = []

    def note(*args: Any, **named: Any) -> Any:
        bound = inspect.signature(TaskPool.on_apply).bind(None, *args, **named)
        given = bound.arguments | bound.arguments.pop("_", {})
        for unused in ("waitforslot", "callbacks_propagate"):
            given.pop(unused, None)
        given["kwargs"] = given["kwargs"] or {}
        target = given.pop("target")  # a function, not bound to the request
        named = {name: getattr(each, "__name__", each) for name, each in given.items()}
        calls.append(named | {"target": target})
        return request

    pool.on_apply = note  # type: ignore[method-assign]
    celerys = make_as_celery(task, message, eventer, pool)
    for each in (request, celerys):
        each.execute_using_pool(pool)
        assert each._apply_result() is request

    assert type(request).__name__ == "HandlerRequest"
    assert calls[0] == calls[1]
    state.revoked.add(request.id)
    try:
        for each in (request, celerys):
            with pytest.raises(TaskRevokedError):
                each.execute_using_pool(pool)
    finally:
        state.revoked.discard(request.id)


@pytest.mark.parametrize("is_revoked", [False, True])
def test_a_run_begins_and_succeeds_as_with_celerys_class(*, is_revoked: bool) -> None:
    """State, counts, events, lease, acknowledgement; one that was revoked meanwhile is stopped."""
    definition = define(ack_deadline=20)
    app = make_app(definition)
    task: Any = app.tasks[definition.queue]
    seen = []
    for is_ours in (True, False):
        state.reset_state()
        stopped: list[Any] = []
        request, message, eventer = make_request(app, definition, POOL)
        if not is_ours:
            request = make_as_celery(task, message, eventer)
        state.task_reserved(request)
        if is_revoked:
            request._terminate_on_ack = (POOL, "TERM")
            request.terminate = lambda *args, stopped=stopped: stopped.append(args)
        request.on_accepted(7, time.monotonic())
        begun = seen_of(request, eventer, message)
        request.on_success((False, "None", 0.1))
        seen.append((begun, seen_of(request, eventer, message), stopped))
    state.reset_state()

    assert seen[0] == seen[1]


def test_a_worker_that_compares_ids_of_successful_tasks_keeps_them() -> None:
    """With ``worker_deduplicate_successful_tasks``."""
    definition = define()
    app = make_app(definition)
    app.conf.worker_deduplicate_successful_tasks = True
    state.reset_state()

    request, _, _ = make_request(app, definition, POOL)
    request.on_success((False, "None", 0.1))

    assert request.id in state.successful_requests


def test_a_run_is_announced_at_debug_as_by_celery(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same line, from the same logger."""
    definition = define()
    app = make_app(definition)
    caplog.set_level(logging.DEBUG, logger="celery.worker.request")
    monkeypatch.setattr(celery_request, "_does_debug", True)
    ours, message, eventer = make_request(app, definition, POOL)
    theirs = make_as_celery(app.tasks[definition.queue], message, eventer)

    for each in (ours, theirs):
        each.on_accepted(7, time.monotonic())

    lines = [(each.name, each.getMessage()) for each in caplog.records]
    assert lines == [("celery.worker.request", f"Task accepted: {ours.name}[{ours.id}] pid:7")] * 2
