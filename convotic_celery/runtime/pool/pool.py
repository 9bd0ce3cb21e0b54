"""The default worker pool: coroutines on one event loop, plain functions in threads beside it.

An async handler's job is a task of the loop, traced by ``tracer.py``. Any other async task is
traced by Celery's own tracer in a thread that waits while its coroutine runs on the loop. Signals,
states and ``self.request`` are Celery's in both. Async jobs have no bound here: how many messages
of a queue run at once is the transport's business (``QueueSpec.concurrency``), and a second bound
would only hold leased messages idle.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAME
from celery.concurrency.base import BasePool
from celery.exceptions import Terminated, WorkerLostError
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop

from convotic_celery.runtime.celery_internals import run_ready_callbacks
from convotic_celery.runtime.execution.current_run import CURRENT_RUN
from convotic_celery.runtime.execution.loop import LoopThread
from convotic_celery.runtime.pool.job import Job
from convotic_celery.runtime.pool.tracer import LoopTracer, loop_tracer
from convotic_celery.runtime.pool.watchdog import LoopWatchdog
from convotic_pubsub.threads import WorkerThreads

if TYPE_CHECKING:
    from convotic_celery.context.store import Store
    from convotic_celery.runtime.execution.lifespans import Lifespans

__all__ = ["TaskPool"]

logger = logging.getLogger(__name__)

#: How often a stopping pool lets Celery's timers fire and runs acknowledgements that wait for the
#: hub.
STOP_TICK_SECONDS = 0.2

#: How long a stopping pool waits for a coroutine that has been cancelled. One that swallows its
#: cancellation is left behind: its message is delivered again.
CANCEL_SECONDS = 5.0

#: Threads that wait for the coroutines of async tasks other than handlers. The transport hands out
#: fewer (``default_max_outstanding``).
MAX_WAITING_THREADS = 1_000

#: How many of those run Python code at a time. A thread that wants the interpreter's lock asks for
#: it every 5 ms (``sys.getswitchinterval``): a thousand at once do little else.
WAITING_THREADS_TURNS = 32


class TaskPool(BasePool):
    """Runs async tasks on an event loop of its own thread, and all others in threads.

    A task is async when it says so (``runs_on_loop``, see ``task.py``). ``limit`` is the number of
    threads for the others, and what ``inspect stats`` shows as max-concurrency.
    """

    signal_safe = False
    body_can_be_buffer = True

    #: A loop that has not turned for so long gets a warning with its stack.
    blocked_seconds = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = max(1, int(self.limit or 1))
        self._loop_thread = LoopThread("convotic-pool")
        self._threads: WorkerThreads[Job] = WorkerThreads(
            self._run_in_thread, limit=self.limit, name="convotic-thread"
        )
        self._waiting_threads: WorkerThreads[Job] = WorkerThreads(
            self._run_in_turn, limit=MAX_WAITING_THREADS, name="convotic-waiting"
        )
        self._turns = threading.Semaphore(WAITING_THREADS_TURNS)
        self._watchdog = LoopWatchdog(
            self._loop_thread,
            blocked_seconds=self.blocked_seconds,
            is_busy=lambda: bool(self._jobs),
        )
        #: Jobs that were taken on and have not ended, by number.
        self._jobs: dict[int, Job] = {}
        #: What is on its way to the loop, and whether it has been woken for that.
        self._coming: deque[Callable[[], object]] = deque()
        self._loop_woken = False
        self._stopping = False
        self._changed = threading.Condition()
        #: By task's name: what runs its coroutine, or the threads for its jobs.
        self._runners: dict[str, LoopTracer | WorkerThreads[Job]] = {}

    # -- what Celery calls ---------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the loop; threads start when there is work for them."""
        self._loop_thread.start()
        self._watchdog.start()
        if self._lifespans is not None:
            self._lifespans.use_loop(self._loop_thread.loop)

    def prepare(self, name: str) -> None:
        """Make what runs a task's jobs, before the first of them.

        Celery's result backend reads a file when it is made, and a process may have no descriptor
        left by then: its messages would be handed back at once, again and again.
        """
        if name not in self._runners:
            self._make_runner(name)

    def on_apply(  # type: ignore[override]  # noqa: PLR0917 - Celery's; it keeps the result
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str | None = None,
        **_: Any,
    ) -> Job:
        """Begin a job; never blocks. Its callbacks report the end, on another thread."""
        runner = self._find_runner(args)
        job = Job(
            target,
            args,
            kwargs or {},
            on_accept=accept_callback,
            on_result=callback,
            on_error=error_callback,
            on_timeout=timeout_callback,
            soft_limit_seconds=soft_timeout or self.options.get("soft_timeout"),
            hard_limit_seconds=timeout or self.options.get("timeout"),
            correlation_id=correlation_id,
        )
        self._jobs[job.number] = job
        try:
            if isinstance(runner, LoopTracer):
                self._submit(job, runner)
            else:
                runner.submit(job)
        except RuntimeError:  # a message that arrived while the pool was stopping
            self._forget(job)
            job.return_unrun()
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:  # noqa: ARG002
        """Cancel an async job's coroutine. A running thread can't be stopped: that is only logged.

        Args:
            pid: The job's number, which ``accept_callback`` was given.
            signal: Ignored; there is no process.
        """
        job = self._jobs.get(pid)
        if job is None:
            return
        job.stop_reason = "terminated"
        if not job.stop() and job.started and job.home is None:
            logger.warning("%r runs in a thread and can't be stopped; its outcome is ignored", job)
        with self._changed:
            self._changed.notify_all()

    def grow(self, n: int = 1) -> None:
        """Allow ``n`` more threads."""
        self.limit += n
        self._threads.resize(self.limit)

    def shrink(self, n: int = 1) -> None:
        """Allow ``n`` threads fewer, at least one; running jobs are not disturbed."""
        self.limit = max(1, self.limit - n)
        self._threads.resize(self.limit)

    def on_stop(self) -> None:
        """Return jobs that have not begun, wait for those that run, end the loop. Idempotent.

        Blocks as long as jobs run; a second signal cancels them (Celery then calls
        :meth:`terminate_job` for each).
        """
        self._stopping = True
        for job in (*self._threads.take_back(), *self._waiting_threads.take_back()):
            self._forget(job)
            job.return_unrun()
        while any(_is_waited_for(job) for job in list(self._jobs.values())):
            with self._changed:
                self._changed.wait(STOP_TICK_SECONDS)
            _turn_hub()
        self._give_back_what_stays()
        self._end()

    def on_terminate(self) -> None:
        """Cancel everything and end now."""
        for number in list(self._jobs):
            self.terminate_job(number, None)
        self._end()

    def _get_info(self) -> dict[str, Any]:
        jobs = list(self._jobs.values())
        info: dict[str, Any] = super()._get_info()  # type: ignore[misc]  # missing in celery-types
        info.update(
            {
                "max-concurrency": self.limit,
                "coroutines": sum(job.task is not None for job in jobs),
                "threads": self._threads.count + self._waiting_threads.count,
                "running": len(jobs),
            }
        )
        return info

    # -- on the loop ---------------------------------------------------------------------------

    def _find_runner(self, args: Sequence[Any]) -> LoopTracer | WorkerThreads[Job]:
        """Return what runs a job; a tracer's arguments are name, id, request, body, its type, …."""
        name = args[0] if args else None
        if not isinstance(name, str) or self.app is None:
            return self._threads
        runner = self._runners.get(name) or self._make_runner(name)
        if isinstance(runner, LoopTracer) and args[4]:  # a body that is to be decoded
            return self._waiting_threads
        return runner

    def _make_runner(self, name: str) -> LoopTracer | WorkerThreads[Job]:
        app: Any = self.app
        task = app.tasks.get(name)
        is_async = getattr(task, "runs_on_loop", False)
        runner = loop_tracer(task) or (self._waiting_threads if is_async else self._threads)
        self._runners[name] = runner
        return runner

    def _submit(self, job: Job, tracer: LoopTracer) -> None:
        if self.is_this_thread:
            self._begin(job, tracer)
        else:
            self.call_soon(partial(self._begin, job, tracer))

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is on the loop."""
        return self._loop_thread.thread_id == threading.get_ident()

    @property
    def blocked_by(self) -> str:
        """The task that has blocked the loop for ``blocked_seconds``; "": none has."""
        return self._watchdog.blocked_by

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop; from any thread. It should raise nothing.

        One wake-up is enough for all that comes before the loop turns.

        Raises:
            RuntimeError: The pool is not running.
        """
        self._coming.append(function)
        if self._loop_woken:
            return
        self._loop_woken = True
        try:
            self._loop_thread.loop.call_soon_threadsafe(self._call_all)
        except RuntimeError:
            self._loop_woken = False
            self._coming.remove(function)
            raise

    def _call_all(self) -> None:
        self._loop_woken = False  # first: what comes from now on wakes the loop again
        while self._coming:
            try:
                self._coming.popleft()()
            except Exception:
                logger.exception("The pool could not begin something")

    def _begin(self, job: Job, tracer: LoopTracer) -> None:
        job.task = self._loop_thread.loop.create_task(self._run_async(job, tracer))

    async def _run_async(self, job: Job, tracer: LoopTracer) -> None:
        """Run one async job. Nothing it raises leaves here: SystemExit would end the loop."""
        try:
            job.accept()
            job.check_not_stopped()
            args = job.args
            result = await tracer.run(job, args[1], args[2], args[3])
        except BaseException as exc:  # noqa: BLE001 - a thread's top: told to the worker
            job.fail(_explain(job, exc))
        else:
            job.succeed(result)
        finally:
            self._forget(job)
            job.task = None

    # -- in threads ----------------------------------------------------------------------------

    def _run_in_turn(self, job: Job) -> None:
        """Run an async job whose coroutine the thread waits for, when it is this thread's turn."""
        with self._turns:
            if self._stopping:
                self._forget(job)
                job.return_unrun()
                return
            job.home = self._loop_thread
            job.turns = self._turns
            self._run_in_thread(job)

    def _run_in_thread(self, job: Job) -> None:
        CURRENT_RUN.set(job)
        try:
            job.accept()
            job.check_not_stopped()
            result = job.call()
        except BaseException as exc:  # noqa: BLE001 - a thread's top: told to the worker
            job.fail(_explain(job, exc))
        else:
            job.succeed(result)
        finally:
            CURRENT_RUN.set(None)
            self._forget(job)

    # -- both ----------------------------------------------------------------------------------

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.number, None)
        if self._stopping:
            with self._changed:
                self._changed.notify_all()

    @property
    def _lifespans(self) -> Lifespans | None:
        """The app's; None for an app that is not ours."""
        lifespans: Lifespans | None = getattr(self.app, "lifespans", None)
        return lifespans

    def _give_back_what_stays(self) -> None:
        """Tell that what nobody can stop was stopped: its message is for another worker.

        A thread, and a coroutine that swallows its cancellation, end with this process.
        """
        for job in list(self._jobs.values()):
            if job.stop_reason == "terminated":
                job.fail(Terminated(TERM_SIGNAME))

    def _end(self) -> None:
        if self._lifespans is not None:
            self._lifespans.close()
        self._watchdog.stop()
        self._threads.stop()
        self._waiting_threads.stop()
        # Its connections belong to the loop: left open, the garbage collector complains of them.
        store: Store | None = getattr(self.app, "store", None)
        self._loop_thread.stop(store.aclose if store is not None else None)


def _is_waited_for(job: Job) -> bool:
    """Say whether a stopping pool must wait: not for runs that can no longer be stopped."""
    if job.stop_reason in {None, "soft_limit"}:
        return True
    return job.task is not None and time.monotonic() < job.stopped_at + CANCEL_SECONDS


def _explain(job: Job, error: BaseException) -> BaseException:
    """Turn what came out of the tracer into what Celery's ``Request.on_failure`` understands."""
    if isinstance(error, asyncio.CancelledError) and job.stop_reason == "terminated":
        return Terminated(TERM_SIGNAME)
    if isinstance(error, Exception):
        return error
    lost = WorkerLostError(repr(error))
    lost.__traceback__ = error.__traceback__
    return lost


def _turn_hub() -> None:
    """Do what Celery's main loop no longer does: fire timers, run queued acknowledgements."""
    hub = get_event_loop()
    if hub is None or worker_state.should_terminate:
        return
    try:
        hub.fire_timers()
        run_ready_callbacks(hub)
    except Exception:
        logger.warning("The worker's event loop failed while the pool was stopping", exc_info=True)
