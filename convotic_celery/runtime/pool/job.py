"""One call that a pool was asked to make, and how its end is told.

What Celery's ``Request`` hands to a pool: a target and callbacks. A job tells its outcome exactly
once, and no exception of a callback reaches the loop or thread that runs it.
"""

from __future__ import annotations

import itertools
import logging
import time
from asyncio import Task
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from billiard.common import TERM_SIGNAME
from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated

if TYPE_CHECKING:
    from convotic_celery.runtime.execution.coroutine import StopReason

__all__ = ["Job"]

logger = logging.getLogger(__name__)

Callback: TypeAlias = Callable[..., Any]

_numbers = itertools.count(1)


class Job:
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
        "_untold",
        "args",
        "correlation_id",
        "enter",
        "hard_limit_seconds",
        "number",
        "soft_limit_seconds",
        "started",
        "stop_reason",
        "task",
        "thread_id",
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
        #: Stands where other pools have a process id; unique in this process.
        self.number = next(_numbers)
        self.soft_limit_seconds = soft_limit_seconds
        self.hard_limit_seconds = hard_limit_seconds
        self.correlation_id = correlation_id
        #: The coroutine's task; None before it starts and for jobs in threads.
        self.task: Task[None] | None = None
        self.started = False
        self.stop_reason: StopReason | None = None
        #: The thread of the loop that runs it; None for jobs in threads.
        self.thread_id: int | None = None
        #: What there is still to do before Celery's stacks are looked at; see ``tracer.py``.
        self.enter: Callable[[], None] | None = None
        #: Of a task: name, id, request, body, content type and encoding of the body.
        self.args = args
        self._target = target
        self._kwargs = kwargs
        self._on_accept = on_accept
        self._on_result = on_result
        self._on_error = on_error
        self._on_timeout = on_timeout
        #: One item until the outcome is told; popping is atomic.
        self._untold = [True]

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.correlation_id or self._target!r}>"

    @property
    def task_name(self) -> str:
        """The task's name, which Celery's tracer takes first; what it calls, for anything else."""
        first = self.args[0] if self.args else None
        return first if isinstance(first, str) else repr(self._target)

    def accept(self) -> None:
        """Tell that the run begins."""
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
        """Tell what the target returned."""
        if self._tell_once():
            self._call(self._on_result, result)

    def fail(self, error: BaseException) -> None:
        """Tell an error that came out of the target; a task's own stays inside Celery's tracer."""
        if self._tell_once():
            self._call(self._on_error, _exception_info(error))

    def exceed_soft_limit(self) -> None:
        """Tell that the soft limit has passed; the outcome is still to come."""
        self._call(self._on_timeout, True, self.soft_limit_seconds)

    def exceed_hard_limit(self) -> None:
        """Tell that the job was given up at its hard limit: that is its outcome."""
        if self._tell_once():
            self._call(self._on_timeout, False, self.hard_limit_seconds)

    def hand_back(self) -> None:
        """Return a job that never began, so that its message is delivered to somebody else."""
        if not self._tell_once():
            return
        request: Any = getattr(self._on_result, "__self__", None)
        if hasattr(request, "hand_back"):
            self._call(request.hand_back)
        elif hasattr(request, "reject"):
            self._call(request.reject, requeue=True)
        else:
            logger.warning("%r was not run: the pool has stopped", self)

    def terminate(self, signal: int | None = None) -> None:
        """Do nothing: Celery calls this beside ``pool.terminate_job``, which does it."""

    def _tell_once(self) -> bool:
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
