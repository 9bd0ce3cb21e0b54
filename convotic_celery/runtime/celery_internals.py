"""All undocumented parts of Celery that the runtime uses, each with its reason.

``tests/unit/runtime/test_celery_internals.py`` fails by a part's name when Celery changes it. What
only a worker needs is imported when it is called, so that a web server does not load it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celery import _state
from celery._state import _task_stack  # type: ignore[attr-defined]  # not in celery-types
from celery.utils.threads import get_ident

__all__ = [
    "OVERRIDDEN",
    "TASKS",
    "clear_frames",
    "custom_pool_name",
    "find_trace_function",
    "has_auto_concurrency",
    "install_cold_stop",
    "install_warm_stop",
    "is_celerys_tracer",
    "is_stopping",
    "key_by",
    "key_by_thread",
    "known_apps",
    "make_request_class",
    "pool_class",
    "run_ready_callbacks",
    "spare_suspended_frames",
    "thread_or_greenlet",
    "worker_hostname",
]

#: Celery's stack of current tasks, behind ``celery.current_task``. Our tracer and our driver of
#: coroutines push to it, as Celery's tracer does.
TASKS: Any = _task_stack

#: What Celery keys its stacks by. Returns the thread's id, or the greenlet with gevent or eventlet.
thread_or_greenlet: Callable[[], object] = get_ident

#: Methods that our subclasses override although Celery does not document them, with the reason.
OVERRIDDEN = {
    "celery.app.base:Celery._get_backend": "the result backend is the store's server, which the "
    "first use may have to start",
    "celery.app.log:Logging._is_configured": "handlers that the application has set up are kept",
    "celery.concurrency.base:BasePool._get_info": "`inspect stats` shows coroutines and threads",
    "celery.worker.consumer:Consumer.cancel_active_requests": "a cold stop of solo and threads",
    "celery.worker.consumer:Consumer._limit_task": "the lease of what waits for its turn is held",
    "celery.worker.consumer.mingle:Mingle.sync": "a worker does not wait for the others' answers",
    "celery.worker.worker:WorkController._process_task": "a request that can't be given to the "
    "pool gives its slot back",
    "celery.worker.request:Request._announce_revoked": "a revoked message is acknowledged and "
    "counted",
}


def key_by(stack: Any, ident: Callable[[], object]) -> None:
    """Have one of Celery's stacks (tasks, or a task's requests) kept by ``ident()``. Idempotent.

    The stacks are kept by thread, and a loop's thread runs many tasks at once. There is no hook for
    it but the attribute. Safe at any time while ``ident`` falls back to
    :func:`thread_or_greenlet`.
    """
    stack.__ident_func__ = ident


def key_by_thread(stack: Any) -> None:
    """Undo :func:`key_by`; call when no coroutine runs."""
    stack.__ident_func__ = get_ident


def worker_hostname() -> str | None:
    """Return the name of this process's worker; None where there is none.

    ``setup_worker_optimizations`` leaves it for Celery's tracer in ``trace._localized``.
    """
    from celery.app import trace  # noqa: PLC0415 - see above

    localized = trace._localized  # type: ignore[attr-defined]  # not in celery-types
    hostname: str | None = localized[2] if localized else None
    return hostname


def is_celerys_tracer(tracer: object) -> bool:
    """Say whether ``task.__trace__`` or ``build_tracer`` is Celery's own, unwrapped.

    Agents of monitors (Sentry's, New Relic's) wrap either, and copy its name: only the file that
    its code comes from can't be copied.
    """
    from celery.app import trace  # noqa: PLC0415 - see above

    code = getattr(tracer, "__code__", None)
    celerys = trace.TraceInfo.handle_ignore.__code__.co_filename
    return code is not None and code.co_filename == celerys and not hasattr(tracer, "__wrapped__")


#: A waiting coroutine goes on, although an error has passed through it.
_MAY_BE_SUSPENDED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def clear_frames(error: BaseException | None = None) -> None:
    """Do what ``celery.app.trace.traceback_clear`` does, and end nothing that still runs.

    Celery clears all frames of a failed run's traceback, to free what their variables hold. An
    exception that several runs raise (a constant of a module, the failure of a future that many
    wait for) has the frames of them all, and to clear the frame of a coroutine that waits closes
    it: its message would never be settled. Python 3.13 refuses that.
    """
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if not frame.f_code.co_flags & _MAY_BE_SUSPENDED:
            try:
                frame.clear()
            except RuntimeError:  # it is being executed
                continue


def spare_suspended_frames() -> Callable[[], None]:
    """Have Celery's tracer use :func:`clear_frames`; return what undoes that. Idempotent."""
    from celery.app import trace  # noqa: PLC0415 - see above

    tracer: Any = trace
    celerys = tracer.traceback_clear
    tracer.traceback_clear = clear_frames

    def undo() -> None:
        tracer.traceback_clear = celerys

    return undo


def make_request_class(base: type[Any], task: Any, pool: Any, hostname: str, eventer: Any) -> Any:
    """Return Celery's request class for a task, derived from ``base``, as its strategy does."""
    from celery.worker.request import (  # type: ignore[attr-defined]  # noqa: PLC0415 - not in celery-types; see above
        create_request_cls,
    )

    return create_request_cls(base, task, pool, hostname, eventer, app=task.app)


def find_trace_function(app: Any) -> Callable[..., Any]:
    """Return what Celery's request has a pool call for a task: one of its two tracers."""
    from celery.app import trace  # noqa: PLC0415 - see above

    tracer: Any = trace
    found: Callable[..., Any] = (
        tracer.fast_trace_task if app.use_fast_trace_task else tracer.trace_task_ret
    )
    return found


def is_stopping() -> bool:
    """Say whether this process's worker stops, warm or cold, as Celery's ``maybe_shutdown`` does.

    Celery keeps an exit code for that, which may be 0; None and False mean that it goes on.
    """
    from celery.worker import state  # noqa: PLC0415 - see above

    codes = (state.should_stop, state.should_terminate)
    return any(code is not None and code is not False for code in codes)


def run_ready_callbacks(hub: Any) -> None:
    """Run the acknowledgements that wait for a hub which no longer turns, and nothing else of it.

    Celery's prefork pool does this while it is being joined; ours has to as well.
    """
    from celery.concurrency.prefork import (  # type: ignore[attr-defined]  # noqa: PLC0415 - as above
        _run_ready_callbacks,
    )

    _run_ready_callbacks(hub)


def known_apps() -> tuple[Any, Any]:
    """Return this thread's current app and the process's default one; None where there is none.

    ``celery.current_app`` would make an app.
    """
    state: Any = _state
    return state._tls.current_app, state.default_app


def install_cold_stop(worker: Any, *, is_last: bool = False) -> None:
    """Have the next SIGTERM stop the worker now; the last one doesn't wait for anything at all.

    Celery installs the same for SIGQUIT, and says so unless it is the last one.
    """
    from celery.apps import worker as program  # noqa: PLC0415 - see above

    install: Any = program.install_worker_term_hard_handler  # type: ignore[attr-defined]  # not in celery-types
    if is_last:
        shutdown: Any = program.on_hard_shutdown  # type: ignore[attr-defined]  # as above
        install(worker, sig="SIGTERM", callback=shutdown, verbose=False)
    else:
        install(worker, sig="SIGTERM")


def install_warm_stop(worker: Any) -> None:
    """Have SIGTERM stop the worker as before, without Celery's line about it on stdout."""
    from celery.apps import worker as program  # noqa: PLC0415 - see above

    install: Any = program.install_worker_term_handler  # type: ignore[attr-defined]  # as above
    install(worker, verbose=False)


def has_auto_concurrency(concurrency: object) -> bool:
    """Say whether ``-c`` leaves the pool's size to Celery."""
    from celery.utils import sysinfo  # noqa: PLC0415 - see above

    found: bool = sysinfo.is_auto_concurrency(concurrency)  # type: ignore[attr-defined]  # not in celery-types
    return found


def pool_class(name: str | type[Any]) -> type[Any]:
    """Return the pool that ``-P`` or ``worker_pool`` names."""
    from celery import concurrency  # noqa: PLC0415 - see above

    found: type[Any] = concurrency.get_implementation(name)
    return found


def custom_pool_name() -> str | None:
    """Return what ``-P custom`` stands for: CELERY_CUSTOM_WORKER_POOL."""
    from celery import concurrency  # noqa: PLC0415 - see above

    name: str | None = concurrency.ALIASES.get("custom")  # type: ignore[attr-defined]  # as above
    return name
