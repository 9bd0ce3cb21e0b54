"""One call that a pool was asked to make, and how its end is reported.

What Celery's ``Request`` hands to a pool: a target and callbacks. A job reports its outcome exactly
once, and no exception of a callback reaches the loop or thread that runs it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from billiard.common import TERM_SIGNAME
from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated

from convotic_celery.runtime.execution.current_run import Run

__all__ = ["Job"]

logger = logging.getLogger(__name__)

Callback: TypeAlias = Callable[..., Any]

_numbers = itertools.count(1)


class Job(Run):
    """A target with its arguments and Celery's callbacks.

    It is also what ``pool.apply_async`` returns, so Celery keeps a weak reference to it.
    """

    __slots__ = (
        "__weakref__",
        "_kwargs",
        "_on_accept",
        "_on_error",
        "_on_result",
        "_on_timeout",
        "_target",
        "_timers",
        "_untold",
        "args",
        "correlation_id",
        "hard_limit_seconds",
        "number",
        "started",
        "stopped_at",
        "task",
    )

    def __init__(
        self,
        target: Callback,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        on_accept: Callback | None = None,
        on_result: Callback | None = None,
        on_error: Callback | None = None,
        on_timeout: Callback | None = None,
        soft_limit_seconds: float | None = None,
        hard_limit_seconds: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__()
        #: Stands where other pools have a process id; unique in this process.
        self.number = next(_numbers)
        self.soft_limit_seconds = soft_limit_seconds
        self.hard_limit_seconds = hard_limit_seconds
        self.correlation_id = correlation_id
        #: The task of its coroutine, while that runs.
        self.task: asyncio.Task[Any] | None = None
        #: None until it has a limit.
        self._timers: list[asyncio.TimerHandle] | None = None
        self.started = False
        #: When it was last cancelled, by the monotonic clock.
        self.stopped_at = 0.0
        #: Of a task: name, id, request, body, content type and encoding of the body.
        self.args = args
        self._target = target
        self._kwargs = kwargs
        self._on_accept = on_accept
        self._on_result = on_result
        self._on_error = on_error
        self._on_timeout = on_timeout
        #: One item until the outcome is reported; popping is atomic.
        self._untold = [True]

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.correlation_id or self._target!r}>"

    @property
    def task_name(self) -> str:
        """The task's name, which Celery's tracer takes first; what it calls, for anything else."""
        first = self.args[0] if self.args else None
        return first if isinstance(first, str) else repr(self._target)

    def begin(self, push: Callable[[], None]) -> None:
        """Note that this task of the running loop is the job's, and set its limits to it."""
        super().begin(push)
        if self.task is None:  # an async handler's job has it already
            self.task = asyncio.current_task()
        if self.soft_limit_seconds or self.hard_limit_seconds:
            self._set_timers()
        if self.stop_reason is not None:
            self.stop()

    def _set_timers(self) -> None:
        loop, timers = asyncio.get_running_loop(), []
        if self.soft_limit_seconds:
            timers.append(loop.call_later(self.soft_limit_seconds, self._stop_softly))
        if self.hard_limit_seconds:
            timers.append(loop.call_later(self.hard_limit_seconds, self._stop_hard))
        self._timers = timers

    def end(self, requests: Any) -> None:
        """Forget the task: its context refers to the job.

        A ring of references would keep all of a message's objects until the collector comes.
        """
        super().end(requests)
        timers, self._timers = self._timers, None
        for timer in timers or ():
            timer.cancel()
        self.task = None

    def stop(self) -> bool:
        """Cancel the coroutine; False if there is none. Thread-safe."""
        self.stopped_at = time.monotonic()
        task = self.task  # read once: the loop's thread forgets it when the run ends
        if task is None:
            return False
        with suppress(RuntimeError):  # its loop was ended without it
            task.get_loop().call_soon_threadsafe(task.cancel)
        return True

    def accept(self) -> None:
        """Report that the run begins."""
        self.started = True
        self._call(self._on_accept, self.number, time.monotonic())

    def check_not_stopped(self) -> None:
        """Raise Terminated if the job was revoked before it began."""
        if self.stop_reason is not None:
            raise Terminated(TERM_SIGNAME)

    def call(self) -> Any:
        """Call the target."""
        return self._target(*self.args, **self._kwargs)

    def succeed(self, result: Any) -> None:
        """Report what the target returned."""
        if self._report_once():
            self._call(self._on_result, result)

    def fail(self, error: BaseException) -> None:
        """Report an error of the target; a task's own stays inside Celery's tracer."""
        if self._report_once():
            self._call(self._on_error, _exception_info(error))

    def return_unrun(self) -> None:
        """Return a job that never began, so that its message is delivered to another worker."""
        if not self._report_once():
            return
        request: Any = getattr(self._on_result, "__self__", None)
        if hasattr(request, "return_unrun"):
            self._call(request.return_unrun)
        elif hasattr(request, "reject"):
            self._call(request.reject, requeue=True)
        else:
            logger.warning("%r was not run: the pool has stopped", self)

    def terminate(self, signal: int | None = None) -> None:
        """Do nothing: Celery calls this beside ``pool.terminate_job``, which does it."""

    def _stop_softly(self) -> None:
        """Report that the soft limit has passed; the outcome is still to come."""
        if self.stop_reason is None and self.task is not None:
            self.stop_reason = "soft_limit"
            self._call(self._on_timeout, True, self.soft_limit_seconds)
            self.task.cancel()

    def _stop_hard(self) -> None:
        """Report that the job was abandoned at its hard limit: that is its outcome."""
        if self.task is not None:
            self.stop_reason = "hard_limit"
            self.stopped_at = time.monotonic()
            if self._report_once():
                self._call(self._on_timeout, False, self.hard_limit_seconds)
            self.task.cancel()

    def _report_once(self) -> bool:
        try:
            return self._untold.pop()
        except IndexError:
            return False

    def _call(self, callback: Callback | None, *args: Any, **kwargs: Any) -> None:
        if callback is None:
            return
        try:
            callback(*args, **kwargs)
        except BaseException:
            logger.exception("%r: the worker's callback failed", self)


def _exception_info(error: BaseException) -> ExceptionInfo:
    """Return billiard's record of an error; it can't be made of one that was never raised."""
    try:
        raise error  # noqa: TRY301 - only that gives it a traceback
    except BaseException as raised:  # noqa: BLE001 - recorded, not handled
        return ExceptionInfo((type(raised), raised, raised.__traceback__))
