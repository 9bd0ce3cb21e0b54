"""Handlers that are paused: :class:`Pauses`, in the store for all workers and in each of them.

``convotic pause`` writes it down for workers that start later, and tells those that run
(``commands.py``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.scripts import Script
from convotic_celery.errors import StoreUnavailable

if TYPE_CHECKING:
    from convotic_celery.context.store import Store

__all__ = ["ALREADY_PAUSED", "NOT_CONSUMED", "NOT_PAUSED", "PAUSED", "RESUMED", "Pauses"]

logger = logging.getLogger(__name__)

#: What a worker answers.
PAUSED, ALREADY_PAUSED = "paused", "already paused"
RESUMED, NOT_PAUSED = "resumed", "not paused"
NOT_CONSUMED = "does not consume it"

_ADD = Script("return redis.call('SADD', KEYS[1], ARGV[1])")
_REMOVE = Script("return redis.call('SREM', KEYS[1], ARGV[1])")
_READ = Script("return redis.call('SMEMBERS', KEYS[1])")


class Pauses:
    """The paused queues: in the store for all workers, ``here`` for this one.

    The methods that use the store block for one round trip and raise StoreUnavailable.
    """

    def __init__(self, store: Store, *, key_prefix: str) -> None:
        self._database = SyncDatabase(store)
        self._key = f"{key_prefix}paused"
        #: What this worker would consume if it were not paused (its main thread).
        self.here: set[str] = set()

    def add(self, queue: str) -> None:
        """Note that a queue is paused. Idempotent."""
        self._database.run(_ADD, [self._key], queue)

    def remove(self, queue: str) -> None:
        """Note that a queue is no longer paused. Idempotent."""
        self._database.run(_REMOVE, [self._key], queue)

    def read(self) -> set[str]:
        """Return the queues that are paused."""
        return set(self._database.run(_READ, [self._key]))

    def deselect(self, queues: Any) -> None:
        """Before a worker connects: leave out of Celery's ``app.amqp.queues`` what is paused."""
        for queue in self._read_or_warn() & set(queues.consume_from):
            queues.deselect([queue])
            self.here.add(queue)

    def catch_up(self, consumer: Any) -> None:
        """Catch up once a worker obeys remote control: stop what was paused before that.

        What it does not consume exists nevertheless: Pub/Sub keeps only what is subscribed to.
        """
        for queue in self._read_or_warn():
            self.pause(consumer, queue)
        for queue in sorted(self.here):
            consumer.app.amqp.queues[queue](consumer.connection.default_channel).declare()
            logger.warning("%s is paused; `convotic resume %s` has it run again", queue, queue)

    def pause(self, consumer: Any, queue: str) -> str:
        """Have this worker stop pulling a queue; return one of the answers above."""
        if queue in self.here:
            return ALREADY_PAUSED
        if not _consumes(consumer, queue):
            return NOT_CONSUMED
        consumer.cancel_task_queue(queue)
        self.here.add(queue)
        return PAUSED

    def resume(self, consumer: Any, queue: str) -> str:
        """Have this worker pull a queue again, if pausing had stopped it."""
        if queue not in self.here:
            return NOT_PAUSED if _consumes(consumer, queue) else NOT_CONSUMED
        self.here.discard(queue)
        consumer.add_task_queue(queue)
        return RESUMED

    def _read_or_warn(self) -> set[str]:
        try:
            return self.read()
        except StoreUnavailable as error:
            logger.warning("Whether a handler is paused can't be read: %s", error)
            return set()


def _consumes(consumer: Any, queue: str) -> bool:
    return bool(consumer.task_consumer.consuming_from(queue))
