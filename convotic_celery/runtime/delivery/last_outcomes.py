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
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic_core import to_json

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

#: A message's id and its task's, when it was settled, its attempt, and when its run began.
_Success: TypeAlias = tuple[str, str, float, int, float]
_SUCCESS_PARTS: Final = 5

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
        self._noted: dict[str, deque[_Success | tuple[Any, ...]]] = {}
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
        """Note it. A success is put into words when it is written; no event is kept here."""
        handler = event.message.definition.queue
        noted = self._noted.get(handler)
        if noted is None:
            noted = self._noted.setdefault(handler, deque(maxlen=self._keep))
        settlement, began_at = event.settlement, event.began_at
        if type(settlement) is Ack and settlement.outcome == "succeeded" and began_at is not None:
            message = event.message
            facts = message.facts
            success = (facts["message_id"], message.task_id, event.at, facts["attempt"], began_at)
            noted.append(success)
        else:
            noted.append(_pack(event))

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
                    packed = [to_text(_describe_success(each)) for each in some]
                    self._database.run(_ADD, [f"{self._prefix}{handler}"], keep, ttl, *packed)
                    remove_written(noted, some)

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


def _describe_success(noted: _Success | tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what :func:`_pack` makes of a success; anything else as it is."""
    if len(noted) != _SUCCESS_PARTS:
        return noted
    message_id, task_id, at, attempt, began_at = noted
    return (message_id, task_id, "succeeded", at, attempt, max(0.0, at - began_at), "")


def _pack(event: MessageSettled) -> tuple[Any, ...]:
    """Return what is stored of a delivery's end; :func:`_parse` reads it."""
    message = event.message
    outcome, reason = _describe(event)
    duration = event.duration_seconds
    ids = (message.message_id, message.task_id)
    return (*ids, outcome, event.at, event.attempt, duration, reason)


def remove_written(noted: deque[Any], written: Sequence[Any]) -> None:
    """Remove what was written, but for what newer ones have pushed out meanwhile."""
    for each in written:
        if noted and noted[0] is each:
            noted.popleft()


def to_text(packed: tuple[Any, ...]) -> str:
    """Return an outcome as JSON, quickly: a message waits for the thread that writes hundreds."""
    try:
        return to_json(packed).decode()
    except ValueError:  # a reason with half a surrogate pair, which is no UTF-8
        return json.dumps(packed)


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
