"""Counts runs and messages by handler: the observer behind the metrics.

All is counted when a message is settled, by hand and in one go: this is done for each message, and
a client's counters cost ten times as much.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

from convotic_celery.runtime.delivery.observing import MessageSettled, RunObserver
from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.settlement import Settlement

__all__ = ["BUCKETS", "HandlerFigures", "Histogram", "RunFigures"]

#: Upper bounds in seconds; celery-exporter's.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
#: A message may wait for long.
QUEUE_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Histogram:
    """Numbers by bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class HandlerFigures:
    """What was counted for one handler. Written under its lock."""

    __slots__ = (
        "dead_letters",
        "failures",
        "first_deliveries",
        "lock",
        "other_seconds",
        "outcomes",
        "queue_seconds",
        "success_seconds",
    )

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.first_deliveries = 0
        self.outcomes: Counter[str] = Counter()
        #: By reason; and by the error's class, as celery-exporter counts failures.
        self.dead_letters: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.queue_seconds = Histogram(QUEUE_BUCKETS)
        #: Of runs whose handler returned, and of all others.
        self.success_seconds = Histogram(BUCKETS)
        self.other_seconds = Histogram(BUCKETS)

    @property
    def settled(self) -> int:
        """Deliveries of which it was decided what becomes of them."""
        return sum(self.success_seconds.counts) + sum(self.outcomes.values())

    @property
    def runs(self) -> int:
        """Runs that have ended."""
        return sum(self.success_seconds.counts) + sum(self.other_seconds.counts)


class RunFigures(RunObserver):
    """Counts what is reported. Thread-safe."""

    def __init__(self) -> None:
        self.handlers: dict[str, HandlerFigures] = {}

    def _of(self, name: str) -> HandlerFigures:
        return self.handlers.setdefault(name, HandlerFigures())

    def message_settled(self, event: MessageSettled) -> None:
        """Count an outcome."""
        name = event.message.definition.queue
        figures = self.handlers.get(name) or self._of(name)
        settlement, began_at, facts = event.settlement, event.began_at, event.message.facts
        with figures.lock:
            if facts["delivery_attempt"] <= 1:
                figures.first_deliveries += 1
            if began_at is not None:
                seconds = event.at - began_at
                published = facts["published_at"].timestamp()
                figures.queue_seconds.add(began_at - published)
                if type(settlement) is Ack and settlement.outcome == "succeeded":
                    figures.success_seconds.add(seconds)
                    return  # nearly every message; its buckets have the number
                figures.other_seconds.add(seconds)
            figures.outcomes[outcome_of(settlement)] += 1
            if isinstance(settlement, Fail):
                figures.dead_letters[settlement.reason] += 1
                figures.failures[settlement.error_type.rpartition(".")[2]] += 1


def outcome_of(settlement: Settlement) -> str:
    """Return the name under which an outcome is counted: that of ``inspect stats``."""
    match settlement:
        case Ack():
            return settlement.outcome
        case RetryRun():
            return "retried"
        case Defer():
            return "deferred"
        case Fail():
            return "dead_lettered"
    return "returned_unrun"
