"""Celery's tracer as a coroutine: for the runs of ``async def`` handlers in the default pool.

Celery's own is a plain function, for whose coroutine a thread has to wait, and does much that no
handler's message asks for: results, callbacks, chains, chords. This one does for a message
what is left of that: the same signals with the same arguments, the same lines in the log, the same
``current_task`` and ``task.request``, and the same outcome for the request's callbacks. It costs a
third of the time. Where Celery's tracer has been extended, that is used
(:func:`loop_tracer`).
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, TypeAlias

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app import trace
from celery.app.task import Context
from celery.backends.base import Backend
from celery.exceptions import Ignore, Retry
from celery.loaders.base import BaseLoader
from celery.utils.nodenames import gethostname

from convotic_celery.runtime.celery_internals import (
    TASKS,
    clear_frames,
    is_celerys_tracer,
    worker_hostname,
)
from convotic_celery.runtime.execution.current_run import Run, key_stacks_by_run
from convotic_celery.runtime.execution.task import HandlerTask

__all__ = ["LoopTracer", "loop_tracer"]

logger = logging.getLogger(trace.logger.name)

#: What a pool's job returns to Celery's request: whether the task failed; how it failed, or what it
#: returned, as text; seconds.
Traced: TypeAlias = tuple[bool, Any, float | None]

#: Celery calls these, so that a task that has them needs Celery's tracer. ``on_failure`` and
#: ``on_retry`` are called by what both tracers use.
_HOOKS = ("before_start", "on_success", "after_return")


def loop_tracer(task: Any) -> LoopTracer | None:
    """Return the tracer of an async handler; None where Celery's own has to be used.

    That is where it does more than Celery made it do: agents of monitors (Sentry's, New Relic's)
    wrap it or the task, and a task can be given hooks by ``task_annotations``.
    """
    if not isinstance(task, HandlerTask) or not task.runs_on_loop:
        return None
    # Not built yet: where there is no worker, whose consumer does that.
    celerys: Any = task.__trace__ or trace.build_tracer
    is_plain = (
        is_celerys_tracer(celerys)
        and type(task).__call__ is HandlerTask.__call__
        and not {"__call__", "run"} & vars(task).keys()
    )
    has_hooks = any(trace.task_has_custom(task, hook) for hook in _HOOKS)
    if not is_plain or has_hooks or task.app.conf.worker_deduplicate_successful_tasks:
        return None
    return LoopTracer(task)


class LoopTracer:
    """Traces the runs of one handler. Belongs to the pool's loop."""

    def __init__(self, task: HandlerTask) -> None:
        self._task = task
        #: The worker's: what Celery has set for its own tracer.
        self._hostname = worker_hostname() or gethostname()
        self._requests: Any = task.request_stack
        key_stacks_by_run(self._requests)
        loader, backend = task.app.loader, task.backend
        #: Celery calls these for each task, and its own do nothing.
        self._init = (
            None if _is(loader.on_task_init, BaseLoader.on_task_init) else loader.on_task_init
        )
        cleanups = (
            (backend.process_cleanup, Backend.process_cleanup),
            (loader.on_process_cleanup, BaseLoader.on_process_cleanup),
        )
        self._cleanups = tuple(own for own, empty in cleanups if not _is(own, empty))
        has_run_lines = getattr(task.app.log, "has_run_lines", False)
        self._logs_success = logger.isEnabledFor(logging.INFO) and not has_run_lines

    async def run(self, run: Run, task_id: str, request: dict[str, Any], body: Any) -> Traced:
        """Run the handler on a message as ``run``; ``body`` is Celery's (args, kwargs, embed).

        Raises:
            asyncio.CancelledError: The pool stopped the run.
        """
        task = self._task
        args, kwargs, _ = body
        began = time.monotonic()
        run.begin(partial(self._push, request, args, kwargs))
        state, returned = None, None
        try:
            if signals.task_prerun.receivers:
                signals.task_prerun.send(
                    sender=task, task_id=task_id, task=task, args=args, kwargs=kwargs
                )
            if self._init is not None:
                self._init(task_id, task)
            try:
                ended = await task.attempt_on_loop(task_id, request, args[0])
                if ended is not None:
                    task.raise_ended(ended)
            except Exception as error:  # noqa: BLE001 - noted for Celery
                state, returned = _state_of(error), error
                return True, self._record_end(state, error), None
            state, seconds = states.SUCCESS, time.monotonic() - began
            self._record_success(task_id, request, seconds)
            return False, "None", seconds
        finally:
            try:
                if signals.task_postrun.receivers:
                    signals.task_postrun.send(
                        sender=task,
                        task_id=task_id,
                        task=task,
                        args=args,
                        kwargs=kwargs,
                        retval=returned,
                        state=state,
                    )
            finally:
                run.end(self._requests)
                if self._cleanups:
                    self._clean_up()

    def _push(self, request: dict[str, Any], args: Any, kwargs: Any) -> None:
        """Make ``current_task`` and ``task.request`` what they should be in this run."""
        context = Context(
            request,
            args=args,
            kwargs=kwargs,
            hostname=self._hostname,
            called_directly=False,
            is_eager=False,
        )
        TASKS.push(self._task)
        self._requests.push(context)

    def _record_success(self, task_id: str, request: dict[str, Any], seconds: float) -> None:
        if signals.task_success.receivers:
            signals.task_success.send(sender=self._task, result=None, runtime=seconds)
        if self._logs_success:
            trace.info(
                trace.LOG_SUCCESS,
                {
                    "id": task_id,
                    "name": self._task.name,
                    "return_value": "None",
                    "runtime": seconds,
                    "args": request["argsrepr"],
                    "kwargs": request["kwargsrepr"],
                },
            )

    def _record_end(self, state: str, error: Exception) -> ExceptionInfo:
        """Report an error, which is being handled, to log, signals and backend."""
        info, context = trace.TraceInfo(state, error), self._requests.top
        try:
            if state == states.IGNORED:
                info.handle_ignore(self._task, context)
                return ExceptionInfo(internal=True)
            einfo: ExceptionInfo = info.handle_error_state(
                self._task, context, call_errbacks=state != states.RETRY
            )
            return einfo
        finally:
            clear_frames(error)

    def _clean_up(self) -> None:
        for clean_up in self._cleanups:
            try:
                clean_up()
            except Exception:
                logger.exception("Process cleanup failed")


def _is(method: Any, function: object) -> bool:
    return getattr(method, "__func__", None) is function


def _state_of(error: Exception) -> str:
    if isinstance(error, Ignore):
        return states.IGNORED
    return states.RETRY if isinstance(error, Retry) else states.FAILURE
