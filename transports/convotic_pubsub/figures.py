"""Figures that are counted where things happen and read from elsewhere: for metrics and health.

One thread writes, any thread may read: a reader sees each figure as it is or was just before.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

__all__ = ["BOUNDS_SECONDS", "Latencies", "QueueVitals", "SessionVitals"]

#: Upper bounds of the buckets; one more takes the rest.
BOUNDS_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Latencies:
    """How long something took, each time: a histogram."""

    __slots__ = ("counts", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds


@dataclass(frozen=True, slots=True)
class QueueVitals:
    """How one consumed queue is doing in this process."""

    queue: str
    #: Slots: messages that may be dispatched at a time, and those that are.
    concurrency: int
    running: int
    #: Ready, waiting for a slot.
    buffered: int
    #: Failed, waiting for their retry.
    waiting: int
    #: Deliveries since the start, without copies of what is here.
    received: int
    #: Renewals of leases since the start.
    renewals: int
    #: From an acknowledgement to its confirmation.
    confirmations: Latencies
    #: False if what pulls has ended although the queue is still consumed.
    is_pulled: bool
    #: Seconds for which the open stream has not answered; 0.0: it does.
    silent_seconds: float
    #: Why nothing can be pulled now; "": it can.
    trouble: str
    #: Seconds for which acknowledgements have waited and none was confirmed; 0.0: none waits.
    unconfirmed_seconds: float
    #: Seconds since the server was heard of here; inf: never.
    heard_seconds: float
    #: When the oldest message that is here for the first time and waits for a slot was published,
    #: in seconds since the epoch; 0.0: none waits.
    oldest_published_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionVitals:
    """How a session is doing. Made without the I/O thread, so also when that stands still."""

    #: False if the I/O thread has ended.
    is_alive: bool
    #: Without the process's control subscription.
    queues: tuple[QueueVitals, ...]
    #: Deliveries in this process.
    outstanding: int
    #: By how much the lease that is most overdue should have been looked after earlier.
    lease_behind_seconds: float
    #: From a publish to its confirmation.
    publishes: Latencies
    #: Publishes that failed.
    publish_failures: int
    #: Confirmed dead letters by queue.
    dead_lettered: dict[str, int]
