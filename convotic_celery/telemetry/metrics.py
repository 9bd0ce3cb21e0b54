"""A worker's metrics, in Prometheus's and OpenMetrics' formats: :class:`WorkerMetrics`.

First celery-exporter's names, so that dashboards made for it show data, then ours. Made from what
is counted anyway, when somebody asks. ``METRICS`` is the table of ``docs/metrics.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from celery.worker import state

from convotic_celery.telemetry.exposition import Buckets, Exposition, Family, Number
from convotic_celery.telemetry.health import STALLS, UNREADY
from convotic_celery.telemetry.server import Answer
from convotic_pubsub.figures import BOUNDS_SECONDS

if TYPE_CHECKING:
    from convotic_celery.telemetry.health import Health
    from convotic_celery.telemetry.run_figures import HandlerFigures, RunFigures
    from convotic_pubsub.figures import QueueVitals, SessionVitals

__all__ = ["METRICS", "WorkerMetrics"]


class _Kind(NamedTuple):
    """A metric: counter, gauge or histogram; its labels beside ``hostname``; what it says."""

    kind: str
    labels: tuple[str, ...]
    text: str


_TASK = ("name", "queue_name")
_HANDLER = ("handler",)

METRICS: Final = {
    # celery-exporter's.
    "celery_task_sent": _Kind("counter", _TASK, "Messages that arrived for the first time."),
    "celery_task_received": _Kind("counter", _TASK, "Deliveries, counted when settled."),
    "celery_task_started": _Kind("counter", _TASK, "Runs, counted when they end."),
    "celery_task_succeeded": _Kind("counter", _TASK, "Runs whose handler returned."),
    "celery_task_failed": _Kind("counter", (*_TASK, "exception"), "Messages dead-lettered."),
    "celery_task_rejected": _Kind("counter", _TASK, "Messages dead-lettered as rejected."),
    "celery_task_revoked": _Kind("counter", _TASK, "Messages whose task was revoked."),
    "celery_task_retried": _Kind("counter", _TASK, "Runs that failed and are retried."),
    "celery_task_runtime": _Kind("histogram", _TASK, "Seconds of runs that succeeded."),
    "celery_worker_up": _Kind("gauge", (), "1 while the worker runs."),
    "celery_worker_tasks_active": _Kind("gauge", (), "Runs under way."),
    "celery_queue_length": _Kind("gauge", ("queue_name",), "Messages in a queue, if known."),
    "celery_active_consumer_count": _Kind("gauge", ("queue_name",), "Consumers of a queue here."),
    "celery_active_worker_count": _Kind("gauge", ("queue_name",), "Workers of a queue: this one."),
    "celery_active_process_count": _Kind("gauge", ("queue_name",), "Slots of a queue here."),
    # Ours.
    "convotic_queue_seconds": _Kind("histogram", _HANDLER, "Time from publish to run."),
    "convotic_run_seconds": _Kind("histogram", _HANDLER, "Time of a run, however it ended."),
    "convotic_messages": _Kind("counter", (*_HANDLER, "outcome"), "Deliveries by outcome."),
    "convotic_dead_letters": _Kind("counter", (*_HANDLER, "reason"), "Dead letters by reason."),
    "convotic_slots": _Kind("gauge", _HANDLER, "Messages that may run at once here."),
    "convotic_slots_busy": _Kind("gauge", _HANDLER, "Slots that are taken."),
    "convotic_buffered_messages": _Kind("gauge", _HANDLER, "Messages that wait for a slot here."),
    "convotic_oldest_waiting_seconds": _Kind(
        "gauge", _HANDLER, "Age of the oldest message that waits for a slot here."
    ),
    "convotic_waiting_retries": _Kind("gauge", _HANDLER, "Failed messages that wait for a retry."),
    "convotic_deliveries": _Kind("counter", _HANDLER, "Messages that Pub/Sub delivered here."),
    "convotic_lease_extensions": _Kind("counter", _HANDLER, "Renewals of leases."),
    "convotic_ack_confirmation_seconds": _Kind(
        "histogram", _HANDLER, "Time from an acknowledgement to its confirmation."
    ),
    "convotic_outstanding_messages": _Kind("gauge", (), "Messages in this process."),
    "convotic_publish_seconds": _Kind("histogram", (), "Time from a publish to its confirmation."),
    "convotic_publish_failures": _Kind("counter", (), "Publishes that were not confirmed."),
    "convotic_ready": _Kind("gauge", (), "1 if the worker is ready, as /readyz says."),
    "convotic_stalled": _Kind("gauge", ("stall",), "1 for a stall that /livez names."),
    "convotic_not_ready": _Kind("gauge", ("reason",), "1 for a reason that /readyz names."),
}


class WorkerMetrics:
    """Collects one worker's metrics. Thread-safe; asks no server.

    Args:
        hostname: The worker's node name: a label of every sample.
        figures: What is counted of runs.
        vitals: Returns what the transport knows.
        health: Returns what the monitor found last.
        queue_lengths: Returns what is known of queues' lengths.
    """

    def __init__(
        self,
        hostname: str,
        figures: RunFigures,
        vitals: Callable[[], list[SessionVitals]],
        health: Callable[[], Health],
        queue_lengths: Callable[[], dict[str, int]],
    ) -> None:
        self._exposition = Exposition({"hostname": hostname})
        self._figures = figures
        self._vitals = vitals
        self._health = health
        self._queue_lengths = queue_lengths

    def answer(self, accept: str) -> Answer:
        """Return all metrics, in the format that is asked for."""
        return Answer(200, *self._exposition.write(self.collect(), accept))

    def collect(self) -> Iterator[Family]:
        """Return the metrics as they are now."""
        handlers = sorted(self._figures.handlers.items())
        sessions = self._vitals()
        queues = [queue for each in sessions for queue in each.queues]
        yield from self._celerys(handlers, queues)
        yield from self._runs(handlers)
        yield from self._transports(sessions, queues)
        yield from self._healths()

    # -- the groups ------------------------------------------------------------------------------

    def _celerys(
        self, handlers: list[tuple[str, HandlerFigures]], queues: list[QueueVitals]
    ) -> Iterator[Family]:
        def count(metric: str, number: Callable[[HandlerFigures], float]) -> Family:
            return _family(metric, [((name, name), number(f)) for name, f in handlers])

        yield count("celery_task_sent", lambda f: f.first_deliveries)
        yield count("celery_task_received", lambda f: f.settled)
        yield count("celery_task_started", lambda f: f.runs)
        yield count("celery_task_succeeded", lambda f: sum(f.success_seconds.counts))
        yield _family(
            "celery_task_failed",
            [((n, n, error), k) for n, f in handlers for error, k in list(f.failures.items())],
        )
        yield count("celery_task_rejected", lambda f: f.dead_letters["rejected"])
        yield count("celery_task_revoked", lambda f: f.outcomes["revoked"])
        yield count("celery_task_retried", lambda f: f.outcomes["retried"])
        yield _family(
            "celery_task_runtime",
            [
                (
                    (n, n),
                    f.success_seconds.bounds,
                    f.success_seconds.counts,
                    f.success_seconds.total,
                )
                for n, f in handlers
            ],
        )
        yield _family("celery_worker_up", [((), 1)])
        yield _family("celery_worker_tasks_active", [((), len(state.active_requests))])
        lengths = self._queue_lengths()
        yield _family("celery_queue_length", [((n,), k) for n, k in sorted(lengths.items())])
        ones = [((q.queue,), 1.0) for q in queues]
        yield _family("celery_active_consumer_count", ones)
        yield _family("celery_active_worker_count", ones)
        yield _family("celery_active_process_count", [((q.queue,), q.concurrency) for q in queues])

    def _runs(self, handlers: list[tuple[str, HandlerFigures]]) -> Iterator[Family]:
        waits = [(name, figures.queue_seconds) for name, figures in handlers]
        yield _family(
            "convotic_queue_seconds", [((n,), h.bounds, h.counts, h.total) for n, h in waits]
        )
        rows: list[Buckets] = []
        for name, figures in handlers:
            good, bad = figures.success_seconds, figures.other_seconds
            both = [one + other for one, other in zip(good.counts, bad.counts, strict=True)]
            rows.append(((name,), good.bounds, both, good.total + bad.total))
        yield _family("convotic_run_seconds", rows)
        yield _family(
            "convotic_messages",
            [
                ((name, outcome), number)
                for name, figures in handlers
                for outcome, number in (
                    ("succeeded", sum(figures.success_seconds.counts)),
                    *sorted(figures.outcomes.items()),
                )
            ],
        )
        yield _family(
            "convotic_dead_letters",
            [((n, reason), k) for n, f in handlers for reason, k in sorted(f.dead_letters.items())],
        )

    def _transports(
        self, sessions: list[SessionVitals], queues: list[QueueVitals]
    ) -> Iterator[Family]:
        for metric, attribute in (
            ("convotic_slots", "concurrency"),
            ("convotic_slots_busy", "running"),
            ("convotic_buffered_messages", "buffered"),
            ("convotic_waiting_retries", "waiting"),
            ("convotic_deliveries", "received"),
            ("convotic_lease_extensions", "renewals"),
        ):
            yield _family(metric, [((q.queue,), getattr(q, attribute)) for q in queues])
        now = time.time()
        yield _family(
            "convotic_oldest_waiting_seconds",
            [((q.queue,), max(0.0, now - (q.oldest_published_at or now))) for q in queues],
        )
        found = [(q.queue, q.confirmations) for q in queues]
        yield _family(
            "convotic_ack_confirmation_seconds",
            [((name,), BOUNDS_SECONDS, h.counts, h.total_seconds) for name, h in found],
        )
        yield _family("convotic_outstanding_messages", [((), sum(s.outstanding for s in sessions))])
        # One process has one session, unless it has apps with other options.
        yield _family(
            "convotic_publish_seconds",
            [((), BOUNDS_SECONDS, s.publishes.counts, s.publishes.total_seconds) for s in sessions][
                :1
            ],
        )
        yield _family(
            "convotic_publish_failures", [((), sum(s.publish_failures for s in sessions))]
        )

    def _healths(self) -> Iterator[Family]:
        health = self._health()
        yield _family("convotic_ready", [((), health.is_ready)])
        stalls = {each.name for each in health.stalls}
        yield _family("convotic_stalled", [((name,), name in stalls) for name in STALLS])
        unready = {each.name for each in health.unready}
        yield _family("convotic_not_ready", [((name,), name in unready) for name in UNREADY])


def _family(name: str, rows: Iterable[Number] | Iterable[Buckets]) -> Family:
    return Family(name, *METRICS[name], rows)
