"""Counts runs and messages by handler: the observer behind the metrics.

All is counted when a message is settled, by hand: this is done for each message, and a client's
counters cost ten times as much. A success, nearly every message, is only noted then. Notes are
counted many at a time, in a loop that has its code and data in the processor's cache: one by one,
between all else that a message needs, the same work takes three times as long.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, TypeAlias

from convotic_celery.runtime.delivery.observing import MessageSettled, RunObserver
from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun

if TYPE_CHECKING:
    from datetime import datetime

    from convotic_celery.runtime.delivery.settlement import Settlement

__all__ = ["BUCKETS", "HandlerFigures", "Histogram", "RunFigures"]

#: Upper bounds in seconds; celery-exporter's.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
#: A message may wait for long.
QUEUE_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

#: More are not kept until somebody asks: 1.5 ms of work.
_NOTED_AT_MOST: Final = 1000


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
    """What was counted for one handler."""

    __slots__ = (
        "dead_letters",
        "failures",
        "first_deliveries",
        "other_seconds",
        "outcomes",
        "queue_seconds",
        "success_seconds",
    )

    def __init__(self) -> None:
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


#: A run whose handler returned, noted: handler, time of publish, Pub/Sub's attempt, begin, end.
_Success: TypeAlias = tuple[str, "datetime", int, float, float]


class RunFigures(RunObserver):
    """Counts what is reported. Thread-safe."""

    def __init__(self) -> None:
        self._handlers: dict[str, HandlerFigures] = {}
        self._noted: deque[_Success] = deque()
        self._lock = threading.Lock()

    @property
    def handlers(self) -> dict[str, HandlerFigures]:
        """What was counted by now, by handler."""
        self._count_noted()
        return self._handlers

    def message_settled(self, event: MessageSettled) -> None:
        """Count an outcome, or note it."""
        settlement, began_at, facts = event.settlement, event.began_at, event.message.facts
        name, attempt = event.message.definition.queue, facts["delivery_attempt"]
        published_at = facts["published_at"]
        if type(settlement) is Ack and settlement.outcome == "succeeded" and began_at is not None:
            noted = self._noted
            noted.append((name, published_at, attempt, began_at, event.at))
            if len(noted) >= _NOTED_AT_MOST:
                self._count_noted()
            return
        with self._lock:
            figures = self._of(name)
            if attempt <= 1:
                figures.first_deliveries += 1
            if began_at is not None:
                figures.queue_seconds.add(began_at - published_at.timestamp())
                figures.other_seconds.add(event.at - began_at)
            figures.outcomes[outcome_of(settlement)] += 1
            if isinstance(settlement, Fail):
                figures.dead_letters[settlement.reason] += 1
                figures.failures[settlement.error_type.rpartition(".")[2]] += 1

    def _of(self, name: str) -> HandlerFigures:
        figures = self._handlers.get(name)
        if figures is None:
            figures = self._handlers[name] = HandlerFigures()
        return figures

    def _count_noted(self) -> None:
        with self._lock:
            take = self._noted.popleft
            for _ in range(len(self._noted)):
                name, published_at, attempt, began_at, at = take()
                figures = self._of(name)
                if attempt <= 1:
                    figures.first_deliveries += 1
                figures.queue_seconds.add(began_at - published_at.timestamp())
                figures.success_seconds.add(at - began_at)


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
