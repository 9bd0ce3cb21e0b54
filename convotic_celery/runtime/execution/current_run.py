"""The run of the current code, for Celery's stacks: :class:`Run` and :func:`current_run`.

Celery keeps ``current_task`` and ``task.request`` by thread. A loop's thread runs many coroutines
at once, so there they are kept by the run that the code belongs to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convotic_celery.runtime.celery_internals import TASKS, key_by, thread_or_greenlet

if TYPE_CHECKING:
    from convotic_celery.runtime.execution.loop import LoopThread

__all__ = ["CURRENT_RUN", "Run", "StopReason", "current_run", "key_stacks_by_run"]

#: Why the pool stops a run.
StopReason: TypeAlias = Literal["terminated", "soft_limit", "hard_limit"]


class Run:
    """One run of a coroutine on a loop: a job of the default pool, or of any other pool."""

    __slots__ = ("home", "push", "soft_limit_seconds", "stop_reason", "thread_id", "turns")

    def __init__(self, home: LoopThread | None = None) -> None:
        #: The loop on which a thread of this run has its coroutine run; None for one on a loop.
        self.home = home
        #: What its thread gives back while it waits for the coroutine, so that another may run.
        self.turns: threading.Semaphore | None = None
        #: The loop's thread while a coroutine of the run lives there.
        self.thread_id: int | None = None
        #: Pushes task and request to Celery's stacks; None once that has been done. It is
        #: expensive, and hardly a handler asks for either.
        self.push: Callable[[], None] | None = None
        self.stop_reason: StopReason | None = None
        self.soft_limit_seconds: float | None = None

    @property
    def is_stopped(self) -> bool:
        """True if it is stopped from outside: itself, or with its whole loop."""
        home = self.home
        return self.stop_reason is not None or (home is not None and not home.is_running)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Give the thread's turn to another for as long as this one waits for its coroutine."""
        if self.turns is not None:
            self.turns.release()
        try:
            yield
        finally:
            if self.turns is not None:
                self.turns.acquire()

    def begin(self, push: Callable[[], None]) -> None:
        """Note that this task of the running loop is the run's from now on."""
        CURRENT_RUN.set(self)
        self.thread_id = threading.get_ident()
        self.push = push

    def end(self, requests: Any) -> None:
        """Take off Celery's stacks what :meth:`begin` had put there."""
        if self.push is None:
            TASKS.pop()
            requests.pop()
        self.push = self.thread_id = None


#: Set in the coroutines of a run, in what they start, and in a thread that the run has.
CURRENT_RUN: ContextVar[Run | None] = ContextVar("convotic_run", default=None)


def current_run() -> object:
    """Return what Celery's stacks are kept by: the run, or else the thread.

    With it ``current_task`` is right in whatever a handler starts on the loop. In a handler's own
    threads the stacks are empty, as in all threads that Celery does not know.
    """
    run = CURRENT_RUN.get()
    if run is None or run.thread_id != threading.get_ident():
        return thread_or_greenlet()
    push, run.push = run.push, None
    if push is not None:
        push()
    return run


def key_stacks_by_run(requests: Any) -> None:
    """Have Celery's stack of tasks, and this stack of requests, kept by run. Idempotent, cheap."""
    key_by(TASKS, current_run)
    key_by(requests, current_run)
