"""Gathers the runs of a batch handler, and calls the handler once for many: :class:`Batches`.

Each message has a run of its own, as with any handler: attempts, keys, lease, outcome. Only the
call is shared: a run that has come to it waits here until its batch has been called.

A plain handler runs in one of the handler's own threads. Nothing stops it, as anywhere: its runs
wait for its end, and it keeps its slot until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from convotic_celery.context.delivery import BatchDelivery
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.execution.coroutine import explain_cancellation
from convotic_celery.runtime.execution.deadline import RunDeadline
from convotic_celery.runtime.execution.exits import call_for_future
from convotic_celery.runtime.execution.invoke import explain_deadline, key_lost
from convotic_celery.runtime.execution.worker_faults import NO_THREAD
from convotic_celery.sdk.batch import BatchFailed
from convotic_celery.sdk.middleware import check_returned
from convotic_pubsub.threads import WorkerThreads

if TYPE_CHECKING:
    from convotic_celery.runtime.execution.invoke import CallHandler, Execution
    from convotic_celery.sdk.message import WorkerMessage

__all__ = ["Batches"]


@dataclass(slots=True, eq=False)
class _Entry:
    """A run that waits for its batch."""

    step: CallHandler
    due_at: float
    #: Done when the batch was called, with its error, if any.
    ended: asyncio.Future[Exception | None]
    batch: _Batch | None = None


@dataclass(slots=True, eq=False)
class _Batch:
    """Runs that are called together."""

    entries: list[_Entry]
    task: asyncio.Task[None] = field(init=False)
    #: What a plain handler does in its thread; it goes on when the task is cancelled.
    call: asyncio.Future[object] | None = None
    #: The call's, once it has begun.
    deadline: RunDeadline | None = None

    def is_overdue(self, grace: float) -> bool:
        """Whether it goes on although its time is over: a plain handler, most likely."""
        deadline = self.deadline
        return deadline is not None and time.monotonic() > deadline.ends_at + grace

    @property
    def messages(self) -> list[WorkerMessage[Any]]:
        return [entry.step.message for entry in self.entries]


class Batches:
    """One handler's batches, on whatever loops its runs are."""

    def __init__(self) -> None:
        self._gatherers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gatherer] = (
            WeakKeyDictionary()
        )
        #: At most so many messages can gather here: a batch of that many is full.
        self.bound: int | None = None

    @property
    def overdue(self) -> int:
        """How many calls go on although their time is over. Thread-safe."""
        return sum(gatherer.overdue for gatherer in list(self._gatherers.values()))

    async def call(self, execution: Execution, step: CallHandler) -> None:
        """Call the handler with this message and others; raises what that means for this one."""
        loop = asyncio.get_running_loop()
        gatherer = self._gatherers.get(loop)
        if gatherer is None:
            gatherer = self._gatherers[loop] = _Gatherer(self, execution, loop)
        await gatherer.call(step)


class _Gatherer:
    """One loop's: a batch is called when it is full, or its first message has waited enough."""

    def __init__(
        self, owner: Batches, execution: Execution, loop: asyncio.AbstractEventLoop
    ) -> None:
        options = execution.definition.options
        assert options.batch is not None
        self._owner = owner
        self._execution = execution
        self._loop = loop
        self._limits = options.batch
        self._concurrency = options.concurrency
        self._run_limit = options.run_limit
        self._grace = options.deadline_grace
        self._waiting: deque[_Entry] = deque()
        self._running: set[_Batch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._threads: WorkerThreads[Callable[[], None]] | None = None
        if not execution.definition.is_async:
            # Not the loop's own threads: those are few, and all handlers' asyncio.to_thread's.
            name = f"convotic-batch-{execution.definition.queue}"
            self._threads = WorkerThreads(_do, limit=self._concurrency, name=name)
            finalize(self, self._threads.stop)

    @property
    def overdue(self) -> int:
        return sum(batch.is_overdue(self._grace) for batch in list(self._running))

    async def call(self, step: CallHandler) -> None:
        """Wait until the step's batch was called; raise its error."""
        due_at = self._loop.time() + self._limits.max_wait
        entry = _Entry(step, due_at, self._loop.create_future())
        self._waiting.append(entry)
        self._start_ready()
        if entry.batch is None and self._lease_timer is None:
            self._keep_leases_later()
        try:
            error = await entry.ended
        except asyncio.CancelledError:
            self._leave(entry)
            raise
        if error is not None:
            raise error

    def _leave(self, entry: _Entry) -> None:
        """Go on without a run that was stopped; an empty batch is stopped, too."""
        if entry.batch is None:
            with contextlib.suppress(ValueError):  # it was just deferred
                self._waiting.remove(entry)
        elif all(each.ended.done() for each in entry.batch.entries):
            entry.batch.task.cancel()

    # -- when a batch is called --------------------------------------------------------------------

    def _start_ready(self) -> None:
        full = min(self._limits.max_size, self._owner.bound or self._limits.max_size)
        while self._waiting and len(self._running) < self._concurrency:
            if len(self._waiting) < full and self._loop.time() < self._waiting[0].due_at:
                break
            count = min(self._limits.max_size, len(self._waiting))
            self._start([self._waiting.popleft() for _ in range(count)])
        if self._waiting and self._timer is None and len(self._running) < self._concurrency:
            self._timer = self._loop.call_at(self._waiting[0].due_at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._start_ready()

    def _start(self, entries: list[_Entry]) -> None:
        batch = _Batch(entries)
        for entry in entries:
            entry.batch = batch
        self._running.add(batch)
        # In no run's context: it is none of theirs.
        batch.task = self._loop.create_task(self._run(batch), context=contextvars.Context())
        batch.task.add_done_callback(lambda _: self._on_end(batch))

    def _on_end(self, batch: _Batch) -> None:
        for entry in batch.entries:
            if not entry.ended.done():  # the batch was stopped
                entry.ended.cancel()
        if batch.call is None or batch.call.done():
            self._free(batch)
        else:
            batch.call.add_done_callback(lambda _: self._free(batch))

    def _free(self, batch: _Batch) -> None:
        self._running.discard(batch)
        self._start_ready()

    def _keep_leases_later(self) -> None:
        self._lease_timer = self._loop.call_later(self._run_limit / 2, self._keep_leases)

    def _keep_leases(self) -> None:
        """Restart the clocks of what waits while all slots are taken: its run has not begun.

        Where no slot may ever be free again, it is for another worker.
        """
        self._lease_timer = None
        if self._running and self.overdue == len(self._running):
            while self._waiting:
                ended = self._waiting.popleft().ended
                if not ended.done():
                    ended.set_result(Deferred("all slots are held past their ack deadline", 1.0))
        for entry in self._waiting:
            entry.step.deadline.restart(self._run_limit)
        if self._waiting:
            self._keep_leases_later()

    # -- the call ----------------------------------------------------------------------------------

    async def _run(self, batch: _Batch) -> None:
        """Call the handler, and end the batch's runs."""
        for entry in batch.entries:
            deadline = entry.step.deadline
            deadline.restart(self._run_limit)
            if deadline.is_lost and not entry.ended.done():
                entry.ended.set_result(key_lost())
        batch.entries = [entry for entry in batch.entries if not entry.ended.done()]
        if not batch.entries:
            return
        error: Exception | None = None
        try:
            await self._call_until_deadline(batch)
        except Exception as raised:  # noqa: BLE001 - whatever a handler raises has a meaning
            error = raised
        failures = _failures_of(error, batch.messages)
        for entry in batch.entries:
            if not entry.ended.done():
                own = failures.get(entry.step.message.id)
                entry.ended.set_result(own and _copy(own))

    async def _call_until_deadline(self, batch: _Batch) -> None:
        definition = self._execution.definition
        deadlines = [entry.step.deadline for entry in batch.entries]
        shared = RunDeadline(
            self._run_limit,
            lambda seconds: all([each.hold(seconds) for each in deadlines]),  # noqa: C419 - all
            bound_seconds=definition.options.max_lease_duration,
        )
        batch.deadline = shared
        if definition.is_async:
            shared.start()
        try:
            for each in deadlines:  # the loss of any key stops the batch
                each.follow(shared)
            await explain_cancellation(self._call(batch, shared))
        except BaseException as error:
            explained = explain_deadline(definition, shared, error)
            if explained is error:
                raise
            raise explained  # noqa: B904 - it has its cause
        finally:
            shared.end()
            for each in deadlines:  # which it refers to
                each.follow(None)

    async def _call(self, batch: _Batch, deadline: RunDeadline) -> None:
        execution, definition = self._execution, self._execution.definition
        resource = None
        if execution.lifespans is not None:
            resource = await execution.lifespans.enter(definition)
        delivery = BatchDelivery(
            handler=definition.queue,
            topic=definition.topic,
            message_id=batch.entries[0].step.message.id,
            module=definition.module,
            control=deadline,
            resource=resource,
            size=len(batch.entries),
        )
        if definition.is_async:
            ctx = execution.contexts.async_context(delivery)
            check_returned(await definition.handler(batch.messages, ctx))
        else:
            plain = execution.contexts.sync_context(delivery)
            batch.call = self._call_in_thread(definition.handler, batch.messages, plain)
            # Shielded: it goes on when its runs are stopped.
            check_returned(await asyncio.shield(batch.call))

    def _call_in_thread(self, handler: Callable[..., object], *args: object) -> asyncio.Future[Any]:
        """Call a plain handler in this context; raises RuntimeError where no thread can start."""
        assert self._threads is not None
        ended: asyncio.Future[object] = self._loop.create_future()
        called = partial(contextvars.copy_context().run, call_for_future, handler, *args)
        try:
            self._threads.submit(partial(_call, called, ended, self._loop))
        except RuntimeError as error:
            raise RuntimeError(NO_THREAD) from error
        return ended


def _do(job: Callable[[], None]) -> None:
    job()


def _call(
    called: Callable[[], object], ended: asyncio.Future[object], loop: asyncio.AbstractEventLoop
) -> None:
    """Call in a thread, and end the future on its loop."""
    end: Callable[[], object]
    try:
        end = partial(ended.set_result, called())
    except BaseException as raised:  # noqa: BLE001 - it is the handler's
        end = partial(ended.set_exception, raised)
    with contextlib.suppress(RuntimeError):  # the loop was stopped without it
        loop.call_soon_threadsafe(_unless_done, ended, end)


def _unless_done(ended: asyncio.Future[object], end: Callable[[], object]) -> None:
    if not ended.done():
        end()


def _copy(error: Exception) -> Exception:
    """Return another exception like this: each run raises its own, with its own traceback."""
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 - a class of the user's, with arguments of its own
        copied = type(error).__new__(type(error), *error.args)
        copied.__dict__.update(error.__dict__)
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)


def _failures_of(
    error: Exception | None, messages: list[WorkerMessage[Any]]
) -> dict[str, Exception]:
    """Return the error of each failed message, by id."""
    if error is None:
        return {}
    ids = {message.id for message in messages}
    if not isinstance(error, BatchFailed):
        return dict.fromkeys(ids, error)
    unknown = error.failures.keys() - ids
    if not unknown:
        return error.failures
    mistake = TypeError(f"BatchFailed names {', '.join(sorted(unknown))}, not in this batch")
    mistake.__cause__ = error
    return dict.fromkeys(ids, mistake)
