"""Whether a worker is stalled, and whether it is ready: from what its probes find.

A *stall* is what only a restart can fix; ``/livez`` names it. An unavailable broker or store, or a
start that is not finished, is no stall and no reason to restart: it only changes ``/readyz``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

__all__ = [
    "LOOK_SECONDS",
    "STALLS",
    "UNREADY",
    "Finding",
    "Findings",
    "Health",
    "Monitor",
    "Probes",
]

logger = logging.getLogger(__name__)

#: Every stall, and what it means; a table in ``docs/health.md``.
STALLS: Final = {
    "handlers-loop-blocked": "an async handler has blocked the event loop for more than 5 s",
    "consumer-thread-dead": "the thread that talks to Pub/Sub has ended or hangs",
    "stream-dead": "nothing pulls a queue any more",
    "stream-silent": "a stream is open and the server does not answer on it",
    "slots-overdue": "all slots of a handler are held by runs past their ack deadline",
    "leases-behind": "leases are not renewed in time",
    "pool-child-lost": "a process of the prefork pool has died and is not replaced",
    "hub-stuck": "Celery's main loop hangs",
    "beat-not-ticking": "the beat in the worker (-B) has stopped",
    "acknowledgements-unconfirmed": "acknowledgements are sent and none is confirmed",
}

#: What makes a worker not ready beside a stall.
UNREADY: Final = {
    "starting": "the worker has not announced itself yet",
    "stopping": "the worker shuts down",
    "broker-unavailable": "no queue can be pulled",
    "queue-unavailable": "some queue can't be pulled",
    "store-unavailable": "the store does not answer",
}

#: How often a worker is looked at. Every stall is noticed within 10 s.
LOOK_SECONDS: Final = 1.0

#: A monitor that has not looked for so long stands still itself.
_LATE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: one of :data:`STALLS` or :data:`UNREADY`, and what exactly."""

    name: str
    detail: str


Findings: TypeAlias = tuple[Finding, ...]


class Probes(Protocol):
    """Looks at a worker. Called once a second on the monitor's thread; must not block."""

    def find_stalls(self, now: float) -> Findings:
        """Return what stands still; ``now`` is monotonic."""
        ...

    def find_unready(self, now: float) -> Findings:
        """Return why it is not ready, beside stalls."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """What was found last."""

    stalls: Findings = ()
    unready: Findings = ()

    @property
    def is_live(self) -> bool:
        """False: restart it."""
        return not self.stalls

    @property
    def is_ready(self) -> bool:
        """Whether it does its work."""
        return not self.stalls and not self.unready

    def describe(self, *, readiness: bool) -> dict[str, Any]:
        """Return what ``/livez`` or ``/readyz`` answers, for JSON."""
        findings = (*self.stalls, *(self.unready if readiness else ()))
        well = "ready" if readiness else "live"
        return {
            "status": "stalled" if self.stalls else "not ready" if findings else well,
            "findings": [{"name": each.name, "detail": each.detail} for each in findings],
        }


@dataclass(slots=True)
class Monitor:
    """Looks at a worker once a second, on a thread of its own, and remembers what it found.

    Thread-safe. What is found first or is over is logged.
    """

    probes: Probes
    clock: Callable[[], float] = time.monotonic
    _health: Health = field(
        default_factory=lambda: Health(unready=(Finding("starting", UNREADY["starting"]),))
    )
    _looked_at: float | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start to look."""
        self._looked_at = self.clock()
        threading.Thread(target=self._work, name="convotic-health", daemon=True).start()

    def stop(self) -> None:
        """Stop looking. Idempotent."""
        self._stopping.set()

    @property
    def health(self) -> Health:
        """What was found last; costs nothing."""
        late = 0.0 if self._looked_at is None else self.clock() - self._looked_at
        if late > _LATE_SECONDS and not self._stopping.is_set():
            finding = Finding("hub-stuck", f"the worker's last check was {late:.0f} s ago")
            return Health((finding,), self._health.unready)
        return self._health

    def look(self) -> None:
        """Look once."""
        now = self.clock()
        found = Health(self.probes.find_stalls(now), self.probes.find_unready(now))
        before, self._health, self._looked_at = self._health, found, now
        _report(before.stalls, found.stalls)

    def _work(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                logger.exception("The worker's health can't be checked")


def _report(before: Findings, now: Findings) -> None:
    known = {each.name for each in before}
    for each in now:
        if each.name not in known:
            logger.error(
                "The worker is stalled, %s: %s",
                each.name,
                each.detail,
                extra={"action": "stalled", "stall": each.name},
            )
    for name in sorted(known - {each.name for each in now}):
        logger.warning("No longer stalled: %s", name, extra={"action": "stall_over", "stall": name})
