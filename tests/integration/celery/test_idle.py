"""Nothing polls: a worker without work costs nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.waiting import PATIENCE, never, wait_until

if TYPE_CHECKING:
    from convotic_celery.cli.demo.child import Child
    from tests.integration.celery.conftest import Plain

SECONDS = 8.0


def wakeups(worker: Child) -> int:
    """Return how often threads of a worker and its children have waited for something."""
    parent = psutil.Process(worker._process.pid)
    found = 0
    for process in (parent, *parent.children(recursive=True)):
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):  # a thread that has ended
                found += int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])
    return found


def test_an_idle_worker_hardly_wakes_up(plain: Plain, worker: Child) -> None:
    """With events, gossip and heartbeats as Celery has them, and two children.

    Counted, since its share of a core depends on the machine's speed: 0.3 to 0.9 %.
    """
    plain.send("add", 1, 2).get(timeout=PATIENCE)

    def measure() -> float:
        before = wakeups(worker)
        never(lambda: worker.is_running is False, for_=SECONDS)
        return (wakeups(worker) - before) / SECONDS

    # 62 a second in some thirty threads of three processes; who looks every 50 ms adds 20 in each.
    wait_until(lambda: measure() < 120, what="a worker that is idle")
