"""Reports to the store, from a worker, what it has to do: :class:`Reporter`."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.worker import state

from convotic_celery.errors import StoreUnavailable
from convotic_celery.runtime.celery_internals import is_stopping
from convotic_celery.telemetry.scaling.demand import HandlerReport

if TYPE_CHECKING:
    from convotic_celery.telemetry.run_figures import HandlerFigures
    from convotic_celery.telemetry.scaling.reports import Reports
    from convotic_pubsub.figures import QueueVitals, SessionVitals

__all__ = ["Reporter"]

logger = logging.getLogger(__name__)

#: How often a worker reports; an average is over so many reports.
_EVERY_SECONDS = 2.0
_AVERAGED = 5
#: How often it looks at its slots in between.
_LOOK_SECONDS = 1.0
_LOOKS = round(_EVERY_SECONDS / _LOOK_SECONDS)


class _Ended(NamedTuple):
    """Runs that have ended since the start, at a moment."""

    at: float
    runs: int
    seconds: float


class _Averages:
    """What one handler did in the last ten seconds."""

    def __init__(self) -> None:
        self.busy: deque[int] = deque(maxlen=_LOOKS * _AVERAGED)
        self.ended: deque[_Ended] = deque(maxlen=_AVERAGED + 1)

    def describe(
        self, vitals: QueueVitals, figures: HandlerFigures | None, slots: int, now: float
    ) -> HandlerReport:
        runs = figures.runs if figures else 0
        seconds = figures.success_seconds.total + figures.other_seconds.total if figures else 0.0
        self.ended.append(_Ended(now, runs, seconds))
        first = self.ended[0]
        new, elapsed = runs - first.runs, now - first.at
        run_seconds = None
        if new:
            run_seconds = (seconds - first.seconds) / new
        elif runs:
            run_seconds = seconds / runs
        oldest = vitals.oldest_published_at
        return HandlerReport(
            slots=slots,
            busy=round(sum(self.busy) / max(1, len(self.busy)), 3),
            rate=round(new / elapsed, 3) if elapsed else 0.0,
            run_seconds=run_seconds,
            buffered=vitals.buffered,
            retrying=vitals.waiting,
            oldest_seconds=round(max(0.0, time.time() - oldest), 1) if oldest else 0.0,
        )


class Reporter:
    """Reports every two seconds, on a thread of its own, until the worker stops.

    Args:
        worker: Celery's.
        reports: Where to.
        figures: Returns what was counted of runs, by queue.
        vitals: Returns what the transport knows.
    """

    def __init__(
        self,
        worker: Any,
        reports: Reports,
        figures: Callable[[], Mapping[str, HandlerFigures]],
        vitals: Callable[[], list[SessionVitals]],
    ) -> None:
        self._worker = worker
        self._reports = reports
        self._figures = figures
        self._vitals = vitals
        self._handlers = {each.queue for each in worker.app.definitions}
        self._averages: dict[str, _Averages] = {}

    def start(self) -> None:
        """Start to report."""
        threading.Thread(target=self._work, name="convotic-scaling", daemon=True).start()

    def look(self) -> list[QueueVitals]:
        """Note what is busy now; return what is pulled."""
        queues = [q for s in self._vitals() for q in s.queues if not q.trouble]
        queues = [q if q.queue in self._handlers else _without_eta(q) for q in queues]
        for each in queues:
            self._averages.setdefault(each.queue, _Averages()).busy.append(each.running)
        return queues

    def describe(self, queues: list[QueueVitals], now: float) -> dict[str, HandlerReport]:
        """Return the report of what is pulled."""
        figures = self._figures()
        for queue in self._averages.keys() - {each.queue for each in queues}:
            del self._averages[queue]
        limit = getattr(self._worker.pool, "limit", None)
        return {
            q.queue: self._averages[q.queue].describe(
                q, figures.get(q.queue), min(q.concurrency, limit or q.concurrency), now
            )
            for q in queues
        }

    def _work(self) -> None:
        looks = 0
        while not is_stopping():
            time.sleep(_LOOK_SECONDS)  # noqa: TID251 - nobody waits for it
            try:
                queues = self.look()
                looks += 1
                if looks % _LOOKS == 0:
                    self._reports.write(
                        self._worker.hostname, self.describe(queues, time.monotonic())
                    )
            except StoreUnavailable as error:
                logger.debug("The worker's load is not reported: %s", error)
            except Exception:
                logger.exception("The worker's load can't be reported")
        try:
            # What it still runs is no load that others will have.
            self._reports.remove(self._worker.hostname)
        except StoreUnavailable as error:
            logger.debug("The worker's report stays for some seconds: %s", error)


def _without_eta(vitals: QueueVitals) -> QueueVitals:
    """Return an ordinary queue without the tasks that are held here until their time comes."""
    active, reserved = (
        sum(_queue_of(request) == vitals.queue for request in list(requests))
        for requests in (state.active_requests, state.reserved_requests)
    )
    return replace(vitals, running=active, buffered=max(0, reserved - active))


def _queue_of(request: Any) -> str:
    return str((request.delivery_info or {}).get("routing_key"))
