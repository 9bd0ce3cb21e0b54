"""The workers that answer, what they run, and how their messages ended since they started."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp

__all__ = ["Running", "Worker", "read_workers", "sum_outcomes"]

#: What the pools' classes are called on the command line.
_POOLS = {
    "convotic_celery.runtime.pool.pool:TaskPool": "asyncio",
    "celery.concurrency.prefork:TaskPool": "prefork",
    "celery.concurrency.solo:TaskPool": "solo",
    "celery.concurrency.thread:TaskPool": "threads",
}
_MAX_RUNNING = 200


@dataclass(frozen=True, slots=True)
class Running:
    """A message that a worker runs."""

    handler: str
    task_id: str
    #: Seconds since the epoch; None if it has not begun.
    began_at: float | None
    worker: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process, as it answered."""

    name: str
    process_id: int | None
    uptime_seconds: float | None
    pool: str
    #: Handler, then outcome, then how many messages ended so since the worker started. None: not
    #: known, since it is another app's.
    outcomes: Mapping[str, Mapping[str, int]] | None = None
    #: Runs past their deadline that could not be stopped, by handler.
    overdue: Mapping[str, int] = field(default_factory=dict)
    running: tuple[Running, ...] = ()
    answered_at: float = 0.0


def read_workers(app: ConvoticApp, timeout_seconds: float) -> list[Worker]:
    """Ask all workers, and wait this long for their answers. Blocks."""
    inspect = app.control.inspect(timeout=timeout_seconds)
    with ThreadPoolExecutor(2, thread_name_prefix="dashboard-ask") as both:
        stats = both.submit(inspect.stats)
        active = both.submit(app.control.inspect(timeout=timeout_seconds).active)
        answers, running = stats.result() or {}, active.result() or {}
    return [_read(name, answers[name], running.get(name) or ()) for name in sorted(answers)]


def sum_outcomes(workers: Iterable[Worker]) -> dict[str, dict[str, int]]:
    """Return handler, outcome and number over all workers."""
    found: dict[str, dict[str, int]] = {}
    for worker in workers:
        for handler, counts in (worker.outcomes or {}).items():
            total = found.setdefault(handler, {})
            for outcome, number in counts.items():
                total[outcome] = total.get(outcome, 0) + number
    return found


def _read(name: str, stats: Mapping[str, Any], active: Any) -> Worker:
    ours = stats.get("convotic")
    pool = str((stats.get("pool") or {}).get("implementation") or "")
    return Worker(
        name=name,
        process_id=stats.get("pid"),
        uptime_seconds=stats.get("uptime"),
        pool=_POOLS.get(pool, pool),
        outcomes=None if ours is None else ours.get("outcomes") or {},
        overdue=(ours or {}).get("overdue") or {},
        running=tuple(
            Running(str(each["name"]), str(each["id"]), each.get("time_start"), name)
            for each in list(active)[:_MAX_RUNNING]
        ),
        answered_at=time.time(),
    )
