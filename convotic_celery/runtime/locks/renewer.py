"""Renews the store's leases of what runs in this process: :class:`LeaseKeeper`.

From a thread of its own, so that neither a handler that blocks its event loop nor plain code that
runs long loses its key; a killed process loses it within :data:`LEASE_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convotic_celery.errors import StoreUnavailable

if TYPE_CHECKING:
    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.context.scripts import Script

__all__ = ["LEASE_SECONDS", "KeptLease", "LeaseKeeper"]

logger = logging.getLogger(__name__)

#: How long a key stays taken after its worker was killed.
LEASE_SECONDS = 15.0
_RENEWALS_A_LEASE = 3


@dataclass(eq=False, slots=True)
class KeptLease:
    """One lease: how it is renewed, and who is told when another run has it."""

    #: The lease's key first, then what taking it needs beside that.
    keys: tuple[str, ...]
    #: The token first.
    arguments: tuple[str, ...]
    renewal: Script
    #: Takes it again when the store has lost it, and frees it.
    taking: Script
    freeing: Script
    on_lost: Callable[[], None]
    renewed_at: float = field(default_factory=time.monotonic)


class LeaseKeeper:
    """Keeps leases until they are dropped. Thread-safe; its thread starts with the first one."""

    def __init__(self, database: SyncDatabase, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._interval = lease_seconds / _RENEWALS_A_LEASE
        self._leases: set[KeptLease] = set()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, lease: KeptLease) -> None:
        """Renew ``lease`` from now on."""
        with self._condition:
            was_idle = not self._leases
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="convotic-leases", daemon=True
                )
                self._thread.start()
            elif was_idle:
                self._condition.notify()

    def drop(self, lease: KeptLease) -> None:
        """Renew it no more; a renewal that is under way can't take the key again. Idempotent."""
        with self._condition:
            self._leases.discard(lease)

    def drop_all(self) -> None:
        """Renew nothing any more; what was kept ends by itself. For a process that goes on."""
        with self._condition:
            self._leases.clear()

    def _work(self) -> None:
        while True:
            for lease in self._wait_for_due():
                try:
                    self._renew(lease)
                except Exception:
                    logger.exception("The lease of %s could not be renewed", lease.keys[0])

    def _wait_for_due(self) -> list[KeptLease]:
        with self._condition:
            while not self._leases:
                self._condition.wait()
            oldest = min(lease.renewed_at for lease in self._leases)
            self._condition.wait(max(0.0, oldest + self._interval - time.monotonic()))
            due = time.monotonic() - self._interval
            return [lease for lease in self._leases if lease.renewed_at <= due]

    def _renew(self, lease: KeptLease) -> None:
        lease.renewed_at = time.monotonic()
        try:
            answer = self._database.run(lease.renewal, lease.keys[:1], *lease.arguments)
            if answer == -1 and self._keeps(lease):
                self._take_again(lease)
        except StoreUnavailable as error:  # it is tried again; meanwhile nobody else gets the key
            logger.warning("The lease of %s is not renewed: %s", lease.keys[0], error)
            return
        if answer == 0 and self._keeps(lease):
            self.drop(lease)
            logger.error("Another run has taken the key %s; this one is stopped", lease.keys[0])
            lease.on_lost()

    def _take_again(self, lease: KeptLease) -> None:
        """Take what the store has lost; if another was faster, the next renewal says so."""
        logger.warning("The store has lost the lease of %s; it is taken again", lease.keys[0])
        self._database.run(lease.taking, lease.keys, *lease.arguments)
        if not self._keeps(lease):  # the run has ended meanwhile, and has freed it already
            self._database.run(lease.freeing, lease.keys[:1], lease.arguments[0])

    def _keeps(self, lease: KeptLease) -> bool:
        with self._condition:
            return lease in self._leases
