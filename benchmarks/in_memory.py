"""Celery's own worker on ``memory://``: prints the rate of the middle 80 % of N no-op tasks.

``python -m benchmarks.in_memory N``, in a process of its own, which contains the broker.
"""

from __future__ import annotations

import sys
import time

from celery import Celery
from celery.contrib.testing.worker import start_worker

from benchmarks.figures import rate_of_middle

app = Celery("in_memory", broker="memory://")
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=16)
arrivals: list[int] = []


@app.task
def note_arrival(sent: int, padding: str) -> None:  # noqa: ARG001 - a no-op
    arrivals.append(time.monotonic_ns())


def main(count: int) -> None:
    for _ in range(count):
        note_arrival.delay(time.monotonic_ns(), "x" * 160)
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
        from tests.support.waiting import wait_until  # noqa: PLC0415

        wait_until(lambda: len(arrivals) >= count, timeout=120)
    print(rate_of_middle(arrivals))


if __name__ == "__main__":
    main(int(sys.argv[1]))
