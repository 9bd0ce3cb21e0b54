"""Which replays are genuine: a dead letter carries a token, and its replay shows it.

A replay claims the id of the first publish, by which ``deduplicate="message.id"`` skips what has
succeeded. Any publisher could claim any id, and have messages skipped that were never run. So a
claim counts only with the token that this deployment put on the dead letter: an HMAC of handler and
id, by a key that is in the store alone.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from convotic_celery.context.scripts import Script
from convotic_celery.errors import StoreUnavailable
from convotic_celery.runtime.delivery.settlement import Deferred
from convotic_celery.runtime.delivery.steps import Ask

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.steps import Steps

__all__ = ["Claim", "ReplayTokens"]

#: KEYS key; ARGV what it is if there is none yet. Gives the key.
_GET_KEY = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
""")

_RETRY_SECONDS = 10.0


class Claim(NamedTuple):
    """What a message says of itself: that it is a replay, and of which message."""

    message_id: str
    replay_count: int
    token: str


class ReplayTokens:
    """Makes and checks tokens, with one key for all handlers. Thread-safe; in a run, as steps."""

    def __init__(self, *, key_prefix: str = "convotic:") -> None:
        self._name = f"{key_prefix}replay-key"
        self._key = b""
        self._asks_again_at = 0.0

    def sign(self, subscription: str, message_id: str) -> Steps[str]:
        """Return the token of a dead letter; "" while the store is unavailable."""
        if not self._key and time.monotonic() < self._asks_again_at:
            return ""
        try:
            return (yield from self._make(subscription, message_id))
        except StoreUnavailable:
            self._asks_again_at = time.monotonic() + _RETRY_SECONDS
            return ""

    def check(self, subscription: str, claim: Claim) -> Steps[bool]:
        """Say whether a claim is genuine.

        Raises:
            Deferred: The store is unavailable, so the claim can't be checked.
        """
        if not claim.token:
            return False
        try:
            token = yield from self._make(subscription, claim.message_id)
        except StoreUnavailable:
            raise Deferred("the store is unavailable", _RETRY_SECONDS) from None
        return hmac.compare_digest(token.encode(), claim.token.encode("utf-8", "replace"))

    def _make(self, subscription: str, message_id: str) -> Steps[str]:
        if not self._key:
            key: str = yield Ask(_GET_KEY, (self._name,), (secrets.token_hex(32),))
            self._key = key.encode()
        message = f"{subscription}\n{message_id}".encode("utf-8", "replace")
        return hmac.new(self._key, message, "sha256").hexdigest()[:32]
