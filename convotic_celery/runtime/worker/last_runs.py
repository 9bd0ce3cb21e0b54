"""Says what a warm shutdown waits for, and goes on saying it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery.worker import state

from convotic_pubsub.threads import LazyThread

__all__ = ["LastRuns", "describe_runs"]

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 10.0
_MAX_NAMED = 5


class LastRuns:
    """Reports the runs that a stopping worker waits for: at once, and every ten seconds."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def start(self) -> None:
        """Report now if there is something to wait for, and from time to time."""
        if describe_runs(time.time()):
            try:
                LazyThread(self._report, name="convotic-last-runs").start()
            except RuntimeError as error:  # it must not keep the worker from stopping
                logger.warning("What the worker waits for can't be said: %s", error)

    def stop(self) -> None:
        """Stop reporting."""
        self._ended.set()

    def _report(self) -> None:
        while text := describe_runs(time.time()):
            logger.info("Stopping: waiting for %s", text, extra={"action": "shutdown_waits"})
            if self._ended.wait(_EVERY_SECONDS):
                return


def describe_runs(now: float) -> str:
    """Return what runs, each with its message, its time and its limit; "" if nothing does."""
    running: list[Any] = sorted(
        state.active_requests, key=lambda request: request.time_start or now
    )
    if not running:
        return ""
    named = [_describe(request, now) for request in running[:_MAX_NAMED]]
    more = [f"{len(running) - _MAX_NAMED} more"] if len(running) > _MAX_NAMED else []
    count = "1 run" if len(running) == 1 else f"{len(running)} runs"
    return f"{count}: {', '.join([*named, *more])}"


def _describe(request: Any, now: float) -> str:
    seconds = now - (request.time_start or now)
    observed = getattr(request, "observed", None)
    if observed is None:
        return f"{request.name}[{request.id}] ({seconds:.0f} s)"
    limit = observed.definition.options.run_limit
    return f"{observed.handler} {observed.message_id} ({seconds:.0f} of {limit:g} s)"
