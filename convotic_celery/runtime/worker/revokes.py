"""Messages that were revoked, in the store: :class:`Revokes`. So a revoke survives the workers.

Celery's workers remember revoked ids, and pass them on to workers that start later. If all
are restarted, as for a deploy, the ids would be forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.worker import state

from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.scripts import Script
from convotic_celery.errors import StoreUnavailable
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from convotic_celery.context.store import Store

__all__ = ["Revokes"]

logger = logging.getLogger(__name__)

#: KEYS sorted set; ARGV now, seconds to live, how many to keep, then ids.
_ADD = Script("""
for i = 4, #ARGV do redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")

#: KEYS sorted set; ARGV the time before which ids are forgotten.
_READ = Script("return redis.call('ZRANGE', KEYS[1], ARGV[1], '+inf', 'BYSCORE')")

_CHUNK = 1_000


class Revokes:
    """Ids of revoked tasks, as long and as many as Celery remembers them. Thread-safe."""

    def __init__(self, store: Store, *, key_prefix: str) -> None:
        self._database = SyncDatabase(store)
        self._key = f"{key_prefix}revoked"
        #: Whether :meth:`recall` has read them.
        self.are_known = False

    def add_soon(self, ids: Iterable[str]) -> None:
        """Note revoked ids, in a thread of its own: remote control must not wait for the store."""
        noted = sorted(set(ids))
        if noted:
            try:
                LazyThread(partial(self._add, noted), name="convotic-revokes").start()
            except RuntimeError as error:  # no thread can start
                _report_loss(noted, error)

    def _add(self, ids: list[str]) -> None:
        ttl, most = str(int(state.REVOKE_EXPIRES)), str(state.REVOKES_MAX)
        try:
            for first in range(0, len(ids), _CHUNK):
                some = ids[first : first + _CHUNK]
                self._database.run(_ADD, [self._key], str(int(time.time())), ttl, most, *some)
        except StoreUnavailable as error:
            _report_loss(ids, error)

    def recall(self) -> None:
        """Have this worker know what was revoked before it started. Raises nothing.

        To be called before its consumer starts.
        """
        oldest = str(int(time.time() - state.REVOKE_EXPIRES))
        try:
            merge: Any = state.merge_revoked  # type: ignore[attr-defined]  # not in celery-types
            merge(self._database.run(_READ, [self._key], oldest))
            self.are_known = True
        except StoreUnavailable as error:
            logger.warning("What was revoked can't be read: %s", error)


def _report_loss(ids: Sequence[str], error: Exception) -> None:
    logger.warning(
        "%d revoked tasks are not in the store and are forgotten by a restart: %s",
        len(ids),
        error,
        extra={"action": "revoke_not_stored"},
    )
