"""What we use of Celery beside its public API is still there and means what it meant, by name."""

from __future__ import annotations

import inspect
import signal
import threading
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state, concurrency, current_task
from celery.app import trace
from celery.concurrency import prefork
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils import threads
from celery.worker import request as worker_request
from celery.worker import state
from kombu.asynchronous import Hub
from kombu.utils.imports import symbol_by_name

from convotic_celery.runtime import celery_internals
from tests.unit.runtime.support import define, make_app

#: The arguments that our calls and overrides pass on.
_SIGNATURES = {
    "celery.app.base:Celery._get_backend": ["self"],
    "celery.app.log:Logging._is_configured": ["self", "logger"],
    "celery.concurrency.base:BasePool._get_info": ["self"],
    "celery.worker.consumer:Consumer.cancel_active_requests": ["self"],
    "celery.worker.consumer:Consumer._limit_task": ["self", "request", "bucket", "tokens"],
    "celery.worker.consumer.mingle:Mingle.sync": ["self", "c"],
    "celery.worker.worker:WorkController._process_task": ["self", "req"],
    "celery.worker.request:Request._announce_revoked": [
        "self",
        "reason",
        "terminated",
        "signum",
        "expired",
    ],
}


@pytest.mark.parametrize("name", sorted(celery_internals.OVERRIDDEN))
def test_what_we_override_takes_the_same_arguments(name: str) -> None:
    """A method that Celery renames or calls otherwise would silently not be ours any more."""
    path, _, method = name.rpartition(".")
    function = getattr(symbol_by_name(path), method)

    assert list(inspect.signature(function).parameters) == _SIGNATURES[name]


@pytest.mark.parametrize("name", ["should_stop", "should_terminate"])
@pytest.mark.parametrize(
    ("value", "stops"),
    [(None, False), (False, False), (0, True), (True, True), (1, True), (70, True)],
)
def test_a_worker_stops_when_celery_would_end_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, *, stops: bool
) -> None:
    """Celery's ``maybe_shutdown`` takes None and False for "goes on", and 0 for an exit code."""
    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(state, "should_terminate", None)
    monkeypatch.setattr(state, name, value)
    try:
        state.maybe_shutdown()
    except (WorkerShutdown, WorkerTerminate):
        ends = True
    else:
        ends = False
    assert celery_internals.is_stopping() is ends is stops


def test_task_stack_is_what_current_task_reads() -> None:
    """``celery._state._task_stack``, which our tracer pushes to."""
    stack: Any = _state._task_stack  # type: ignore[attr-defined]  # not in celery-types
    assert celery_internals.TASKS is stack
    task = make_app(define()).tasks["orders.new.shop"]
    stack.push(task)
    try:
        assert current_task.name == task.name
    finally:
        stack.pop()


def test_ident_func_is_what_stacks_are_kept_by_and_can_be_put_back() -> None:
    """``Local.__ident_func__``, for the stack of tasks and for each task's requests."""
    app: Celery[Any] = Celery("unit", set_as_current=False)

    @app.task(shared=False)
    def some_task() -> None:
        """Do nothing."""

    stack: Any = some_task.request_stack
    celery_internals.key_by(stack, lambda: "one")
    stack.push("its request")
    celery_internals.key_by(stack, lambda: "another")
    assert stack.top is None
    celery_internals.key_by(stack, lambda: "one")
    assert stack.pop() == "its request"

    celery_internals.key_by_thread(stack)

    assert stack.__ident_func__ is threads.get_ident is celery_internals.thread_or_greenlet


def test_localized_has_the_workers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``trace._localized``: the third is the host name that ``setup_worker_optimizations`` got."""
    source = inspect.getsource(trace.setup_worker_optimizations)
    assert "_localized[:] = [" in source
    monkeypatch.setattr(trace, "_localized", [object(), object(), "worker@here"])
    assert celery_internals.worker_hostname() == "worker@here"
    monkeypatch.setattr(trace, "_localized", [])
    assert celery_internals.worker_hostname() is None


def test_build_tracer_is_told_from_what_wraps_it() -> None:
    """``trace.build_tracer`` and the ``task.__trace__`` that it makes come from Celery's file."""
    app = make_app(define())
    task = app.tasks["orders.new.shop"]
    tracer = trace.build_tracer(task.name, task, app=app)

    @wraps(tracer)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return tracer(*args, **kwargs)

    assert celery_internals.is_celerys_tracer(trace.build_tracer)
    assert celery_internals.is_celerys_tracer(tracer)
    assert not celery_internals.is_celerys_tracer(wrapped)
    assert not celery_internals.is_celerys_tracer(test_build_tracer_is_told_from_what_wraps_it)


def test_create_request_cls_takes_what_we_give() -> None:
    """``celery.worker.request.create_request_cls``, which Celery's own strategy calls."""
    create: Any = worker_request.create_request_cls  # type: ignore[attr-defined]  # not in celery-types
    parameters = list(inspect.signature(create).parameters)
    assert parameters[:5] == ["base", "task", "pool", "hostname", "eventer"]
    assert "app" in parameters


def test_run_ready_callbacks_leaves_all_but_acknowledgements() -> None:
    """``celery.concurrency.prefork._run_ready_callbacks`` puts a transport's reader back."""
    assert callable(prefork._run_ready_callbacks)  # type: ignore[attr-defined]  # not in celery-types
    hub, called = Hub(), threading.Event()
    hub.call_soon(called.set)
    celery_internals.run_ready_callbacks(hub)

    assert not called.is_set()
    left: Any = hub._pop_ready()
    assert len(left) == 1
    hub.close()


def test_tls_has_the_current_app_and_default_app_the_other() -> None:
    """``_state._tls.current_app`` and ``_state.default_app``, without making one."""
    state: Any = _state
    before = state._tls.current_app, state.default_app
    try:
        state._tls.current_app = state.default_app = None
        assert celery_internals.known_apps() == (None, None)
        app = make_app(define())
        app.set_current()
        assert celery_internals.known_apps() == (app, app)
    finally:
        state._tls.current_app, state.default_app = before


@pytest.mark.parametrize("is_last", [False, True])
def test_install_worker_term_hard_handler_installs_for_sigterm(is_last: bool) -> None:
    """``celery.apps.worker.install_worker_term_hard_handler`` and ``on_hard_shutdown``."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        celery_internals.install_cold_stop(object(), is_last=is_last)
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_install_worker_term_handler_may_be_silent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``celery.apps.worker.install_worker_term_handler``."""
    monkeypatch.setattr(state, "should_stop", None)  # Celery's, which the handler sets
    before = signal.getsignal(signal.SIGTERM)
    worker: Any = SimpleNamespace(hostname="worker")
    try:
        celery_internals.install_warm_stop(worker)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert state.should_stop == 0
    assert capfd.readouterr().out == ""


def test_is_auto_concurrency_is_about_the_option() -> None:
    """``celery.utils.sysinfo.is_auto_concurrency``."""
    assert celery_internals.has_auto_concurrency("auto")
    assert not celery_internals.has_auto_concurrency(2)


def test_get_implementation_and_aliases_know_pools_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``celery.concurrency.get_implementation`` and ``ALIASES``."""
    aliases: Any = concurrency.ALIASES  # type: ignore[attr-defined]  # not in celery-types
    monkeypatch.delitem(aliases, "custom", raising=False)

    assert celery_internals.pool_class("prefork") is prefork.TaskPool
    assert celery_internals.custom_pool_name() is None
    monkeypatch.setitem(aliases, "custom", "some.pool:TaskPool")
    assert celery_internals.custom_pool_name() == "some.pool:TaskPool"


def test_celerys_tracer_clears_frames_by_the_name_that_we_replace() -> None:
    """``trace.traceback_clear``; the replacement is undone."""
    tracer: Any = trace
    celerys = tracer.traceback_clear
    inner = [code for code in tracer.build_tracer.__code__.co_consts if inspect.iscode(code)]
    assert "traceback_clear" in {name for code in inner for name in code.co_names}
    undo = celery_internals.spare_suspended_frames()
    try:
        assert tracer.traceback_clear is celery_internals.clear_frames
    finally:
        undo()
    assert tracer.traceback_clear is celerys


def test_what_a_finished_function_holds_is_freed_and_a_suspended_coroutine_lives() -> None:
    """An error has the frames of all through which it has passed."""
    shared = ValueError("shared")

    def fail() -> None:
        large = bytearray(10)
        assert large
        raise shared

    class Pause:
        def __await__(self) -> Any:
            yield

    async def wait_while_handling() -> str:
        try:
            fail()
        except ValueError:
            await Pause()
        return "went on"

    coroutine = wait_while_handling()
    coroutine.send(None)
    celery_internals.clear_frames(shared)

    traceback: Any = shared.__traceback__
    assert "large" not in traceback.tb_next.tb_frame.f_locals
    with pytest.raises(StopIteration, match="went on"):
        coroutine.send(None)
