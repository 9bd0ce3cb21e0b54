"""Renews the locks that this process holds in the store: :class:`LockRenewer`.

It has a thread of its own, so that neither a handler that blocks its event loop nor plain code that
runs long loses its lock. A killed process loses its locks within :data:`LOCK_SECONDS`.
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

__all__ = ["LOCK_SECONDS", "HeldLock", "LockRenewer"]

logger = logging.getLogger(__name__)

#: How long a key stays taken after its worker was killed.
LOCK_SECONDS = 15.0
_RENEWALS_A_LOCK = 3


@dataclass(eq=False, slots=True)
class HeldLock:
    """One lock: how it is renewed, and what to call when another run has taken it."""

    #: The lock's key first, then the keys that taking it needs besides.
    keys: tuple[str, ...]
    #: The token first.
    arguments: tuple[str, ...]
    renewal: Script
    #: Takes it again when the store has lost it, and frees it.
    taking: Script
    freeing: Script
    on_lost: Callable[[], None]
    renewed_at: float = field(default_factory=time.monotonic)


class LockRenewer:
    """Renews locks until they are dropped. Thread-safe; its thread starts with the first one."""

    def __init__(self, database: SyncDatabase, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._database = database
        self._interval = lock_seconds / _RENEWALS_A_LOCK
        self._locks: set[HeldLock] = set()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, lock: HeldLock) -> None:
        """Renew ``lock`` from now on."""
        with self._condition:
            was_idle = not self._locks
            self._locks.add(lock)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="convotic-locks", daemon=True
                )
                self._thread.start()
            elif was_idle:
                self._condition.notify()

    def drop(self, lock: HeldLock) -> None:
        """Stop renewing it; a renewal that is under way can't take it again. Idempotent."""
        with self._condition:
            self._locks.discard(lock)

    def drop_all(self) -> None:
        """Stop renewing all; they expire by themselves. For a process that goes on."""
        with self._condition:
            self._locks.clear()

    def _work(self) -> None:
        while True:
            for lock in self._wait_for_due():
                try:
                    self._renew(lock)
                except Exception:
                    logger.exception("The lock of %s could not be renewed", lock.keys[0])

    def _wait_for_due(self) -> list[HeldLock]:
        with self._condition:
            while not self._locks:
                self._condition.wait()
            oldest = min(lock.renewed_at for lock in self._locks)
            self._condition.wait(max(0.0, oldest + self._interval - time.monotonic()))
            due = time.monotonic() - self._interval
            return [lock for lock in self._locks if lock.renewed_at <= due]

    def _renew(self, lock: HeldLock) -> None:
        lock.renewed_at = time.monotonic()
        try:
            answer = self._database.run(lock.renewal, lock.keys[:1], *lock.arguments)
            if answer == -1 and self._keeps(lock):
                self._take_again(lock)
        except StoreUnavailable as error:  # retried; meanwhile nobody else can take it either
            logger.warning("The lock of %s is not renewed: %s", lock.keys[0], error)
            return
        if answer == 0 and self._keeps(lock):
            self.drop(lock)
            logger.error("Another run has taken the key %s; this one is stopped", lock.keys[0])
            lock.on_lost()

    def _take_again(self, lock: HeldLock) -> None:
        """Retake a lock that the store lost; the next renewal sees whether another was faster."""
        logger.warning("The store has lost the lock of %s; it is taken again", lock.keys[0])
        self._database.run(lock.taking, lock.keys, *lock.arguments)
        if not self._keeps(lock):  # the run has ended meanwhile, and has freed it already
            self._database.run(lock.freeing, lock.keys[:1], lock.arguments[0])

    def _keeps(self, lock: HeldLock) -> bool:
        with self._condition:
            return lock in self._locks
