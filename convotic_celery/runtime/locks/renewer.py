"""Renews the locks that this process holds in the store, many at once: :class:`LockRenewer`.

It has a thread of its own, so that neither a handler that blocks its event loop nor plain code that
runs long loses its lock. A killed process loses its locks within :data:`LOCK_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convotic_celery.errors import StoreUnavailable
from convotic_celery.runtime.locks.outage import StoreOutage
from convotic_pubsub.outage import Outage
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.context.scripts import Script

__all__ = ["LOCK_SECONDS", "HeldLock", "LockRenewer"]

logger = logging.getLogger(__name__)

#: How long a key stays taken after its worker was killed.
LOCK_SECONDS = 15.0
_RENEWALS_A_LOCK = 3
#: Renewals that share a round trip: a thousand runs cost as many as one, however far the store is.
_MOST_TOGETHER = 500


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
        self._thread = LazyThread(self._work, name="convotic-locks")
        #: The thread waits for a first lock. Else it looks by itself in time: to wake it up for
        #: each message would take the interpreter from the one that runs.
        self._is_idle = False
        self._outage = StoreOutage(
            "locks of running messages are not renewed", "%d renewals of locks failed"
        )
        #: Locks that the store has lost, all of them when it was restarted without its data.
        self._lost = Outage()

    def keep(self, lock: HeldLock) -> None:
        """Renew ``lock`` from now on.

        Raises:
            RuntimeError: The thread can't start now; the run must not go on.
        """
        with self._condition:
            self._locks.add(lock)
            if not self._thread.start() and self._is_idle:
                self._is_idle = False
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
            due = self._wait_for_due()
            for first in range(0, len(due), _MOST_TOGETHER):
                self._renew(due[first : first + _MOST_TOGETHER])

    def _wait_for_due(self) -> list[HeldLock]:
        with self._condition:
            while not self._locks:
                self._is_idle = True
                self._condition.wait()
            oldest = min(lock.renewed_at for lock in self._locks)
            self._condition.wait(max(0.0, oldest + self._interval - time.monotonic()))
            due = time.monotonic() - self._interval
            return [lock for lock in self._locks if lock.renewed_at <= due]

    def _renew(self, locks: list[HeldLock]) -> None:
        now = time.monotonic()
        for lock in locks:
            lock.renewed_at = now
        calls = [(lock.renewal, lock.keys[:1], lock.arguments) for lock in locks]
        try:
            answers = self._database.run_all(calls)
        except StoreUnavailable as error:  # retried; meanwhile no other run can take them
            self._outage.miss(error, times=len(locks))
            return
        except Exception:
            logger.exception("The locks of %d runs could not be renewed", len(locks))
            return
        self._outage.end()
        for lock, answer in zip(locks, answers, strict=True):
            try:
                self._take_in(lock, answer)
            except StoreUnavailable as error:
                self._outage.miss(error)
            except Exception:
                logger.exception("The lock of %s could not be renewed", lock.keys[0])
        if 1 in answers and -1 not in answers and (lost := self._lost.end()):
            logger.info("%d locks that the store had lost were taken again", lost)

    def _take_in(self, lock: HeldLock, answer: Any) -> None:
        """Act on what the store says to a renewal."""
        if isinstance(answer, Exception):
            raise answer
        if not self._keeps(lock):
            return
        if answer == -1:
            self._take_again(lock)
        elif answer == 0:
            self.drop(lock)
            logger.error("Another run has taken the key %s; this one is stopped", lock.keys[0])
            lock.on_lost()

    def _take_again(self, lock: HeldLock) -> None:
        """Retake a lock that the store lost; the next renewal sees whether another was faster."""
        if self._lost.miss():
            logger.warning(
                "The store has lost the lock of %s; it is taken again. Further ones are not logged",
                lock.keys[0],
            )
        self._database.run(lock.taking, lock.keys, *lock.arguments)
        if not self._keeps(lock):  # the run has ended meanwhile, and has freed it already
            self._database.run(lock.freeing, lock.keys[:1], lock.arguments[0])

    def _keeps(self, lock: HeldLock) -> bool:
        with self._condition:
            return lock in self._locks
