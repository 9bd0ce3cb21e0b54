"""Wires health and metrics into Celery's worker: a step between its pool and its consumer."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.signals import worker_ready

from convotic_celery.runtime.delivery.observing import observers
from convotic_celery.telemetry.health import Monitor
from convotic_celery.telemetry.probes import WorkerProbes
from convotic_celery.telemetry.server import Answer, TelemetryServer, json_answer, serve
from convotic_pubsub.registry import open_sessions

if TYPE_CHECKING:
    from convotic_celery.settings import Settings
    from convotic_celery.telemetry.metrics import WorkerMetrics

__all__ = ["Telemetry"]

logger = logging.getLogger(__name__)

#: How often the lengths of queues are asked for, in the background.
_LENGTHS_SECONDS = 10.0


class _WorkerSource:
    """Answers for one worker."""

    def __init__(self, monitor: Monitor, metrics: WorkerMetrics) -> None:
        self._monitor = monitor
        self._metrics = metrics

    def answer(self, path: str, accept: str, query: str = "") -> Answer | None:
        """Answer a path; None for one that there is not."""
        del query
        health = self._monitor.health
        match path:
            case "/livez":
                return json_answer(200 if health.is_live else 503, health.describe(readiness=False))
            case "/readyz":
                return json_answer(200 if health.is_ready else 503, health.describe(readiness=True))
            case "/metrics":
                return self._metrics.answer(accept)
        return None


class Telemetry(bootsteps.StartStopStep):
    """Answers on ``CONVOTIC_HEALTH_PORT`` from before the consumer starts until the worker ends."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._server: TelemetryServer | None = None

    def include_if(self, parent: Any) -> bool:
        """Only if somebody wants it."""
        settings: Settings = parent.app.settings
        return settings.health_port is not None or settings.health_socket is not None

    def start(self, parent: Any) -> None:
        """Start to look, to count and to answer.

        Raises:
            ConfigurationError: The port is taken, or may not be used.
        """
        from convotic_celery.telemetry.metrics import WorkerMetrics  # noqa: PLC0415 - costs 20 ms
        from convotic_celery.telemetry.run_figures import RunFigures  # noqa: PLC0415 - as above
        from convotic_celery.telemetry.scaling.reporter import Reporter  # noqa: PLC0415 - as above
        from convotic_celery.telemetry.scaling.reports import Reports  # noqa: PLC0415 - as above

        settings: Settings = parent.app.settings
        self._probes = WorkerProbes(parent, open_sessions, time.monotonic)
        self._monitor = Monitor(self._probes)
        self._figures = RunFigures()
        self._lengths = QueueLengths()
        metrics = WorkerMetrics(
            parent.hostname,
            self._figures,
            lambda: [session.vitals() for session in open_sessions()],
            lambda: self._monitor.health,
            lambda: self._lengths.known,
        )
        self._server = serve(_WorkerSource(self._monitor, metrics), settings)
        observers.add(self._figures)
        worker_ready.connect(self._on_ready, sender=None)
        self._monitor.start()
        self._lengths.start()
        Reporter(
            parent,
            Reports(parent.app.store, key_prefix=settings.store_prefix),
            lambda: self._figures.handlers,
            lambda: [session.vitals() for session in open_sessions()],
        ).start()

    def _on_ready(self, **_: Any) -> None:
        self._probes.is_started = True

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Have Celery's main loop show that it turns; asked again after each reconnect."""
        del parent
        if self._server is not None:
            self._probes.tick()
            hub.call_repeatedly(1.0, self._probes.tick)

    def stop(self, parent: Any) -> None:
        """Nothing: it answers until the worker has ended, so that ``/readyz`` says "stopping"."""

    def terminate(self, parent: Any) -> None:
        """Nothing, as above."""

    def close(self, parent: Any) -> None:
        """Nothing, as above."""


class QueueLengths:
    """Asks for the lengths of this process's queues now and then, on a thread of its own."""

    def __init__(self) -> None:
        #: By queue; what could be found out last.
        self.known: dict[str, int] = {}

    def start(self) -> None:
        """Start to ask."""
        threading.Thread(target=self._work, name="convotic-lengths", daemon=True).start()

    def _work(self) -> None:
        while True:
            time.sleep(_LENGTHS_SECONDS)  # noqa: TID251 - a thread of its own
            try:
                self.known = {k: v for s in open_sessions() for k, v in _ask(s).items()}
            except Exception:
                logger.debug("The lengths of the queues are not known", exc_info=True)
                self.known = {}


def _ask(session: Any) -> dict[str, int]:
    names = {session.spec(q.queue).subscription: q.queue for q in session.vitals().queues}
    sizes = session.resources.backlog_sizes(list(names))
    return {names[name]: size.messages for name, size in sizes.items()}
