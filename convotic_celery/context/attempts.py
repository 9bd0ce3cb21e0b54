"""What the runtime remembers about a message's failed runs: :class:`AttemptLog`.

One small hash a message, gone with the message or with its time to live::

    convotic:attempts:custom.orders.new.crm:1234567890    failure:9f0c... ""
                                                          hand_back:77a1... ""

Each incident has a name of its own, so that a call repeated after a lost answer counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from convotic_celery.context.database import AsyncDatabase
from convotic_celery.context.records import new_token
from convotic_celery.context.scripts import Script

if TYPE_CHECKING:
    from convotic_celery.context.store import Store

__all__ = ["AttemptLog", "Attempts"]

_RECALL = Script("return redis.call('HKEYS', KEYS[1])")
_RECORD = Script("""
redis.call('HSET', KEYS[1], ARGV[1], '')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")
_FORGET = Script("return redis.call('DEL', KEYS[1])")


class Attempts(NamedTuple):
    """How often a message failed and how often it was handed back unrun."""

    failures: int = 0
    hand_backs: int = 0


class AttemptLog:
    """Counts failures and hand-backs by subscription and message id.

    One round trip a call. All raise StoreUnavailable while the store is away, after a few seconds
    of retries; use a timeout where that is too long.
    """

    def __init__(self, store: Store, *, key_prefix: str = "convotic:") -> None:
        self._database = AsyncDatabase(store)
        self._prefix = f"{key_prefix}attempts:"

    async def recall(self, subscription: str, message_id: str) -> Attempts:
        """Return the counts; zeros for a message of which nothing was recorded."""
        names = await self._database.run(_RECALL, [self._key(subscription, message_id)])
        failures = sum(name.startswith("failure:") for name in names)
        return Attempts(failures, len(names) - failures)

    async def record(
        self,
        subscription: str,
        message_id: str,
        incident: Literal["start", "failure", "hand_back"],
        ttl_seconds: float,
    ) -> None:
        """Count one more, and keep the message's counts for ``ttl_seconds`` from now."""
        key, name = self._key(subscription, message_id), f"{incident}:{new_token()}"
        await self._database.run(_RECORD, [key], name, str(max(1, int(ttl_seconds))))

    async def forget(self, subscription: str, message_id: str) -> None:
        """Drop the counts: the message is gone for good. Idempotent."""
        await self._database.run(_FORGET, [self._key(subscription, message_id)])

    def _key(self, subscription: str, message_id: str) -> str:
        return f"{self._prefix}{subscription}:{message_id}"
