"""How many messages ended how, and which don't end; shown by ``celery inspect stats``."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, TypeAlias

from celery.worker import state

__all__ = ["Outcome", "OutcomeCounters", "count_overdue", "outcomes"]

Outcome: TypeAlias = Literal[
    "succeeded",
    "dropped",
    "retried",
    "dead_lettered",
    "returned_unrun",
    "revoked",
    "deferred",
    "duplicate",
    "expired",
    "other_target",
]


class OutcomeCounters:
    """Counts outcomes by handler. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[Outcome]] = {}

    def count(self, handler: str, outcome: Outcome) -> None:
        """Add one."""
        with self._lock:
            counter = self._counts.get(handler)
            if counter is None:
                counter = self._counts[handler] = Counter()
            counter[outcome] += 1

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Return handler -> outcome -> number; only what has occurred."""
        with self._lock:
            return {
                name: {str(outcome): number for outcome, number in counter.items()}
                for name, counter in self._counts.items()
            }


#: This process's.
outcomes = OutcomeCounters()


def count_overdue() -> dict[str, int]:
    """Return, by handler, how many runs are past their deadline and could not be stopped."""
    running = list(state.requests.values())
    return dict(Counter(each.name for each in running if getattr(each, "is_overdue", False)))
