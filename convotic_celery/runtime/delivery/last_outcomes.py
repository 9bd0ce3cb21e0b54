"""The last outcomes of each handler, in the store: :class:`LastOutcomes`.

Celery's results of handlers are not stored, and Flower knows only what it has seen since it
started. So each worker notes how deliveries ended: bounded, in batches, and expiring.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.scripts import Script
from convotic_celery.errors import StoreUnavailable
from convotic_celery.runtime.delivery.observing import MessageSettled, RunObserver
from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun

if TYPE_CHECKING:
    from convotic_celery.context.store import Store

__all__ = ["CELERY_STATES", "HandlerOutcome", "LastOutcomes"]

logger = logging.getLogger(__name__)

#: What Celery calls an outcome.
CELERY_STATES: Final[Mapping[str, str]] = {
    "succeeded": "SUCCESS",
    "dropped": "SUCCESS",
    "duplicate": "SUCCESS",
    "retried": "RETRY",
    "deferred": "RETRY",
    "dead_lettered": "FAILURE",
    "revoked": "REVOKED",
}

#: KEYS list; ARGV how many to keep, seconds to live, then outcomes, the oldest first.
_ADD = Script("""
for i = 3, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")

_READ = Script("return redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)")

#: KEYS lists, ARGV a task's id. Gives the number of the list and the task's newest outcome, if any.
_FIND = Script("""
for number, key in ipairs(KEYS) do
  for _, each in ipairs(redis.call('LRANGE', key, 0, -1)) do
    if string.find(each, ARGV[1], 1, true) and cjson.decode(each)[2] == ARGV[1] then
      return {number, each}
    end
  end
end
return {}
""")

_KEPT_SECONDS = 7 * 24 * 3600
_WRITE_SECONDS = 1.0
_FLUSH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class HandlerOutcome:
    """How a delivery of a message ended."""

    handler: str
    message_id: str
    #: Celery's.
    task_id: str
    #: ``succeeded``, ``retried``, ``dead_lettered``, …: the table of docs/delivery.md.
    outcome: str
    #: UTC.
    at: datetime
    attempt: int
    #: None if no run began.
    duration_seconds: float | None
    #: The error's class, or why it was dropped; "" if there is none.
    reason: str

    @property
    def celery_state(self) -> str:
        """Celery's state of it: SUCCESS, RETRY, FAILURE, REVOKED; else ``unknown``."""
        return CELERY_STATES.get(self.outcome, "unknown")


class LastOutcomes(RunObserver):
    """Notes outcomes in a worker, and reads them anywhere. Thread-safe.

    A message costs the worker an append; a thread writes once a second. While the store is
    unavailable the newest ones wait here, as many as are kept.

    Args:
        store: The store.
        key_prefix: Of all keys of the app.
        keep: How many for each handler; 0: none are noted.
    """

    def __init__(self, store: Store, *, key_prefix: str, keep: int) -> None:
        self._database = SyncDatabase(store)
        self._prefix = f"{key_prefix}outcomes:"
        self._keep = keep
        self._noted: dict[str, deque[tuple[Any, ...]]] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_on(self) -> bool:
        """Whether any are to be noted."""
        return self._keep > 0

    # -- in a worker ------------------------------------------------------------------------------

    def start(self) -> None:
        """Write what is noted, from now on."""
        threading.Thread(target=self._run, name="convotic-outcomes", daemon=True).start()
        atexit.register(self.flush)

    def message_settled(self, event: MessageSettled) -> None:
        """Note it."""
        message = event.message
        noted = self._noted.get(message.handler)
        if noted is None:
            noted = self._noted.setdefault(message.handler, deque(maxlen=self._keep))
        outcome, reason = _describe(event)
        noted.append(
            (
                message.message_id,
                message.task_id,
                outcome,
                event.at,
                event.attempt,
                event.duration_seconds,
                reason,
            )
        )

    def flush(self) -> None:
        """Write what is noted now; what the store does not take is dropped."""
        try:
            self._write()
        except StoreUnavailable as error:
            logger.debug("The last outcomes are not stored: %s", error)

    def _run(self) -> None:
        while not self._stopping.wait(_WRITE_SECONDS):
            self.flush()

    def _write(self) -> None:
        with self._lock:
            for handler, noted in list(self._noted.items()):
                some = [noted[index] for index in range(len(noted))] if noted else []
                if some:
                    keep, ttl = str(self._keep), str(_KEPT_SECONDS)
                    packed = [json.dumps(each) for each in some]
                    self._database.run(_ADD, [f"{self._prefix}{handler}"], keep, ttl, *packed)
                    written = some[-1]
                    while noted and noted.popleft() is not written:
                        pass

    # -- anywhere ---------------------------------------------------------------------------------

    def last(self, handler: str, limit: int = 50) -> list[HandlerOutcome]:
        """Return a handler's last outcomes, newest first. Blocks; raises StoreUnavailable."""
        raw = self._database.run(_READ, [f"{self._prefix}{handler}"], str(limit))
        return [_parse(handler, each) for each in raw]

    def find_task(self, task_id: str, handlers: Sequence[str]) -> HandlerOutcome | None:
        """Return the last outcome of a task of any of these handlers; None: not known. Blocks."""
        if not handlers:
            return None
        keys = [f"{self._prefix}{handler}" for handler in handlers]
        found = self._database.run(_FIND, keys, task_id)
        return _parse(handlers[int(found[0]) - 1], found[1]) if found else None

    def find(self, handler: str, task_or_message_id: str) -> HandlerOutcome | None:
        """Return the last outcome of a message, by its id or its task's; None: not known."""
        for each in self.last(handler, max(1, self._keep)):
            if task_or_message_id in (each.task_id, each.message_id):
                return each
        return None


def _describe(event: MessageSettled) -> tuple[str, str]:
    match event.settlement:
        case Ack(outcome=outcome, reason=reason):
            return outcome, reason
        case RetryRun(error_type=kind):
            return "retried", kind
        case Defer(reason=reason):
            return "deferred", reason
        case Fail(reason=reason, error_type=kind):
            return "dead_lettered", kind or reason
    return "returned_unrun", ""


def _parse(handler: str, raw: str) -> HandlerOutcome:
    message_id, task_id, outcome, at, attempt, duration, reason = json.loads(raw)
    moment = datetime.fromtimestamp(at, UTC)
    return HandlerOutcome(handler, message_id, task_id, outcome, moment, attempt, duration, reason)
