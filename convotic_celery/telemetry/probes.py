"""Looks at a running worker for :mod:`~convotic_celery.telemetry.health`, without asking a server.

Whatever needs the broker to go on (acknowledgements, a silent stream, beat) is no stall while the
broker is unavailable.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import psutil
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker import state

from convotic_celery.runtime.celery_internals import is_stopping
from convotic_celery.runtime.delivery.counters import count_overdue
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.schedule.beat import beat_ticked_at
from convotic_celery.telemetry.health import UNREADY, Finding, Findings

if TYPE_CHECKING:
    from convotic_pubsub.figures import SessionVitals
    from convotic_pubsub.session import Session

__all__ = ["WorkerProbes"]

#: How long each may last before it counts. With a look a second all are noticed within 10 s.
_HUB_SECONDS = 6.0
_IO_SECONDS = 5.0
_LEASES_SECONDS = 5.0
_ACKS_SECONDS = 8.0
_CHILD_SECONDS = 5.0
#: Beat ticks at least every five seconds (``beat_max_loop_interval``).
_BEAT_SECONDS = 8.0
#: Between two looks so long, the whole process was stopped.
_PAUSE_SECONDS = 4.0
#: A routine reconnect takes less.
_TROUBLE_SECONDS = 5.0


class WorkerProbes:
    """Looks at one worker. ``worker`` is Celery's, ``sessions`` returns those of this process."""

    def __init__(
        self, worker: Any, sessions: Callable[[], list[Session]], clock: Callable[[], float]
    ) -> None:
        self._worker = worker
        self._sessions = sessions
        self._clock = clock
        #: Set by Celery's main loop once a second; 0.0: it does not run (yet).
        self._hub_ticked_at = 0.0
        #: Since when something has been so, by what it is.
        self._since: dict[str, float] = {}
        self._answered_at: weakref.WeakKeyDictionary[Session, float] = weakref.WeakKeyDictionary()
        self._looked_at = 0.0
        self.is_started = False

    def tick(self) -> None:
        """Note that Celery's main loop turns."""
        self._hub_ticked_at = self._clock()

    # -- stalls ----------------------------------------------------------------------------------

    def find_stalls(self, now: float) -> Findings:
        """Return what stands still; nothing while the worker starts or shuts down."""
        if now - self._looked_at > _PAUSE_SECONDS:
            self._start_afresh(now)
        self._looked_at = now
        if not self.is_started or is_stopping():
            return ()
        return tuple(
            Finding(name, detail)
            for name, details in (
                ("handlers-loop-blocked", self._blocked_loop()),
                ("consumer-thread-dead", self._dead_threads(now)),
                ("slots-overdue", self._overdue_slots()),
                ("pool-child-lost", self._lost_children(now)),
                ("hub-stuck", self._stuck_hub(now)),
                *self._session_stalls(now),
            )
            for detail in details
        )

    def _start_afresh(self, now: float) -> None:
        """Forget for how long something has been so: this process itself did not run."""
        self._since.clear()
        self._answered_at.clear()
        self._hub_ticked_at = now if self._hub_ticked_at else 0.0

    def _session_stalls(self, now: float) -> Iterator[tuple[str, Iterable[str]]]:
        vitals = self._vitals()
        queues = [queue for each in vitals for queue in each.queues]
        yield "stream-dead", [each.queue for each in queues if not each.is_pulled]
        yield (
            "leases-behind",
            [
                f"by {each.lease_behind_seconds:.0f} s"
                for each in vitals
                if each.is_alive and each.lease_behind_seconds > _LEASES_SECONDS
            ],
        )
        if queues and all(each.trouble for each in queues):
            return  # the broker is unavailable
        yield (
            "stream-silent",
            [f"{q.queue}, for {q.silent_seconds:.0f} s" for q in queues if q.silent_seconds],
        )
        yield (
            "acknowledgements-unconfirmed",
            [
                f"{q.queue}, for {q.unconfirmed_seconds:.0f} s"
                for q in queues
                if q.unconfirmed_seconds > _ACKS_SECONDS and not q.trouble
            ],
        )
        yield "beat-not-ticking", self._dead_beat(now)

    def _blocked_loop(self) -> Iterator[str]:
        name = getattr(self._worker.pool, "blocked_by", "")
        if name:
            yield name

    def _dead_threads(self, now: float) -> Iterator[str]:
        for session in self._sessions():
            answered_at = self._answered_at.setdefault(session, now)
            if not session.vitals().is_alive:
                yield "its thread has ended"
                continue
            session.post(self._record_answer, session)
            if now - answered_at > _IO_SECONDS:
                yield f"it has not turned for {now - answered_at:.0f} s"

    def _record_answer(self, session: Session) -> None:
        self._answered_at[session] = self._clock()

    def _overdue_slots(self) -> Iterator[str]:
        messages = count_overdue()
        for definition in self._worker.app.definitions:
            name = definition.queue
            task = self._worker.app.tasks[name]
            batches = task.execution.batches
            # A batch's thread goes on when its runs were stopped.
            number = messages.get(name, 0) if batches is None else batches.overdue
            if number and number >= self._slots_of(task):
                yield f"{name}, {number}"

    def _slots_of(self, task: Any) -> int:
        """Return how many calls of a handler there can be at once: of messages, or of batches."""
        slots: int = task.definition.options.concurrency
        pool = self._worker.pool
        if isinstance(pool, SoloPool):
            return 1
        has_own_bound = isinstance(pool, TaskPool) and task.runs_on_loop
        return slots if has_own_bound else min(slots, pool.num_processes or slots)

    def _lost_children(self, now: float) -> Iterator[str]:
        pool = self._worker.pool
        lost = 0
        if isinstance(pool, PreforkPool):
            billiards: Any = pool._pool  # type: ignore[attr-defined]  # not in celery-types
            children = list(billiards._pool)
            lost = billiards._processes - sum(_is_running(each.pid) for each in children)
        if self._lasts("child", lost > 0, now, _CHILD_SECONDS):
            yield f"{lost} of {billiards._processes}"

    def _stuck_hub(self, now: float) -> Iterator[str]:
        late = now - self._hub_ticked_at if self._hub_ticked_at else 0.0
        is_running_there = isinstance(self._worker.pool, SoloPool) and state.active_requests
        connects = getattr(self._worker.consumer, "connection", None) is None
        if connects or is_running_there:
            self._hub_ticked_at = now
        elif late > _HUB_SECONDS:
            yield f"it has not turned for {late:.0f} s"

    def _dead_beat(self, now: float) -> Iterator[str]:
        if getattr(self._worker, "beat", None) is None:
            return
        late = now - max(beat_ticked_at(), self._since.setdefault("beat", now))
        if late > _BEAT_SECONDS:
            yield f"it has not ticked for {late:.0f} s"

    # -- readiness -------------------------------------------------------------------------------

    def find_unready(self, now: float) -> Findings:
        """Return why no work is done now."""
        found = []
        if is_stopping():
            found.append(Finding("stopping", UNREADY["stopping"]))
        elif not self.is_started:
            found.append(Finding("starting", UNREADY["starting"]))
        queues = [queue for each in self._vitals() for queue in each.queues]
        troubled = [
            q for q in queues if self._lasts(q.queue, bool(q.trouble), now, _TROUBLE_SECONDS)
        ]
        if troubled:
            name = "broker-unavailable" if len(troubled) == len(queues) else "queue-unavailable"
            found.extend(Finding(name, f"{q.queue}: {q.trouble}") for q in troubled[:5])
        if self._worker.delayed_publisher.store_is_unavailable:
            found.append(Finding("store-unavailable", UNREADY["store-unavailable"]))
        return tuple(found)

    def _vitals(self) -> list[SessionVitals]:
        return [session.vitals() for session in self._sessions()]

    def _lasts(self, what: str, is_so: bool, now: float, seconds: float) -> bool:
        """Say whether something has been so for ``seconds``."""
        if not is_so:
            self._since.pop(what, None)
            return False
        return now - self._since.setdefault(what, now) >= seconds


def _is_running(pid: int) -> bool:
    """Say whether a child runs, without reaping it."""
    try:
        status: str = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return status not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
