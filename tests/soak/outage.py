"""The broker is unavailable for an hour, with a backlog: no restart is asked for, nothing grows.

Half of the time connections are refused, half of it nothing is answered.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import psutil

from tests.acceptance.test_health import worker_behind_proxy
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage
    from tests.acceptance.test_health import Port

__all__ = ["Outage", "lose_broker"]

#: A liveness probe fails three times, ten seconds apart, before it restarts a worker.
RESTART_SECONDS = 20.0


@dataclass
class Outage:
    """What was seen."""

    seconds: float = 0.0
    #: For how long /livez failed without a break, at most.
    failing_seconds: float = 0.0
    findings: Counter[str] = field(default_factory=Counter)
    #: Of a core, in the outage.
    cpu: float = 0.0
    #: Threads, descriptors and megabytes a tenth into the outage, and at its end.
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    #: Messages, and how many of them did not end, or ended twice.
    messages: int = 0
    lost: int = 0
    repeated: int = 0
    dead_letters: int = 0
    #: From the broker's return to the end of the backlog.
    recovery_seconds: float = 0.0

    @property
    def holds(self) -> bool:
        grown = {name: self.after[name] - self.before[name] for name in self.before}
        return (
            self.failing_seconds < RESTART_SECONDS
            and not self.lost
            and not self.dead_letters
            and grown["threads"] <= 2
            and grown["descriptors"] <= 5
            and grown["memory_mb"] <= 10
        )

    def show(self) -> str:
        return (
            f"{self.seconds:.0f} s without a broker: /livez failed for at most "
            f"{self.failing_seconds:.1f} s, /readyz said {', '.join(sorted(self.findings))}.\n"
            f"{self.cpu:.1%} of a core; {self.before} became {self.after}.\n"
            f"{self.messages} messages: {self.lost} lost, {self.repeated} ended twice, "
            f"{self.dead_letters} dead letters; all done {self.recovery_seconds:.0f} s after the "
            "broker's return."
        )


def lose_broker(stage: Stage, *, seconds: float, messages: int) -> Outage:
    """Run a worker with a backlog, take its broker away for so long, and give it back."""
    outage = Outage(messages=messages)
    with worker_behind_proxy(stage) as (proxy, worker, port):
        process = psutil.Process(worker.child.pid)
        stage.publish_json(*({"id": number, "slow": 0.1} for number in range(messages)))
        wait_until(stage.read_runs, what="the first run")
        cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
        proxy.refuse()
        _watch(outage, process, port, began + seconds / 2)
        proxy.resume()
        proxy.pause()
        _watch(outage, process, port, began + seconds)
        outage.after = _measure(process)
        outage.seconds = time.monotonic() - began
        outage.cpu = (sum(process.cpu_times()[:2]) - cpu) / outage.seconds
        proxy.resume()
        returned = time.monotonic()
        wait_until(
            lambda: len({r["data"]["id"] for r in stage.read_runs("end")}) == messages,
            timeout=180,
            what="the backlog to end",
        )
        outage.recovery_seconds = time.monotonic() - returned
        wait_until(lambda: port.ask("/readyz").status == 200, what="readiness")
        outage.dead_letters = port.get("/metrics").count("convotic_dead_letters_total{")
    ends = Counter(run["data"]["id"] for run in stage.read_runs("end"))
    outage.lost = messages - len(ends)
    outage.repeated = sum(count > 1 for count in ends.values())
    return outage


def _watch(outage: Outage, process: psutil.Process, port: Port, until: float) -> None:
    """Probe as a kubelet does, but more often."""
    total = until - time.monotonic()
    warm_at = time.monotonic() + total / 5
    failing_since: float | None = None
    while (now := time.monotonic()) < until:
        live, ready = port.ask("/livez"), port.ask("/readyz")
        outage.findings.update(live.names | ready.names)
        if live.status == 200:
            failing_since = None
        else:
            failing_since = failing_since or now
            outage.failing_seconds = max(outage.failing_seconds, time.monotonic() - failing_since)
        if not outage.before and now > warm_at:
            outage.before = _measure(process)
        Event().wait(min(1.0, total / 50))


def _measure(process: psutil.Process) -> dict[str, int]:
    return {
        "threads": process.num_threads(),
        "descriptors": process.num_fds(),
        "memory_mb": process.memory_info().rss // 1_000_000,
    }
