"""Nothing polls: a worker without work costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from tests.support.waiting import PATIENCE, never, wait_until

if TYPE_CHECKING:
    from convotic_celery.cli.demo.child import Child
    from tests.integration.celery.conftest import Plain

SECONDS = 8.0


def cpu_seconds(worker: Child) -> float:
    """Return what a worker and its children have used of a core."""
    parent = psutil.Process(worker._process.pid)
    times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def test_an_idle_worker_uses_under_one_percent_of_a_core(plain: Plain, worker: Child) -> None:
    """With events, gossip and heartbeats as Celery has them, and two children."""
    plain.send("add", 1, 2).get(timeout=PATIENCE)

    def measure() -> float:
        before = cpu_seconds(worker)
        never(lambda: worker.is_running is False, for_=SECONDS)
        return (cpu_seconds(worker) - before) / SECONDS

    # A busy machine's processor takes twice as long for the same.
    wait_until(lambda: measure() < 0.01, what="a worker that is idle")
