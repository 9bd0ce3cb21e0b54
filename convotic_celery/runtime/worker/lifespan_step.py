"""Opens the modules' lifespans when a worker starts, before it takes its first message."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import state

from convotic_celery.runtime.execution.lifespans import one_of_each, report_failure

__all__ = ["OpenLifespans"]

#: How often a worker that waits for a lifespan checks for an order to stop.
POLL_SECONDS = 0.2


class OpenLifespans(bootsteps.StartStopStep):
    """A step of the worker between its pool and its consumer.

    Opens those of the modules whose queues it consumes, one after the other. The first that fails
    stops the worker. The pool closes them when its last run has ended. With prefork each child
    opens its own (``lifespans.begin_all``).
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, parent: Any) -> bool:
        """Leave it to prefork's children."""
        return not issubclass(parent.pool_cls, PreforkPool)

    def start(self, parent: Any) -> None:
        """Open them, and return when all are open; raises WorkerShutdown."""
        consumed = parent.app.amqp.queues.consume_from
        definitions = [d for d in parent.app.definitions if d.queue in consumed]
        for definition in one_of_each(definitions):
            opening = parent.app.lifespans.begin(definition)
            while not wait([opening], POLL_SECONDS).done:
                state.maybe_shutdown()
            error = opening.exception()
            if error is not None:
                report_failure(definition, error, "the worker does not start")
                raise WorkerShutdown(EX_FAILURE)
