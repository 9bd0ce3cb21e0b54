"""What the store knows about a message's earlier runs: :class:`AttemptLog`.

One small hash a message, gone with the message or with its time to live::

    convotic:attempts:custom.orders.new.crm:1234567890    failure:9f0c…  ""
                                                          begin:77a1…    ""
                                                          last  ["max-retries-exceeded",
                                                                 "ValueError", "no stock"]

A run notes that it *begins*; its end replaces that by a failure, or removes it. A begin without an
end is a loss: the process died. Each run has a name of its own, so a call that is repeated after a
lost answer counts once. First deliveries don't come here at all, unless they fail.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from convotic_celery.context.database import SyncDatabase
from convotic_celery.context.scripts import Script
from convotic_celery.errors import StoreRefused, StoreUnavailable
from convotic_celery.runtime.delivery.steps import Ask, Steps
from convotic_pubsub.outage import Outage

if TYPE_CHECKING:
    from convotic_celery.context.store import Store
    from convotic_celery.runtime.delivery.settlement import DeadLetterReason, RetryRun

__all__ = ["AttemptLog", "Attempts", "End", "RunName", "describe_failure"]

logger = logging.getLogger(__name__)

#: KEYS hash; ARGV run, seconds to live. Gives the hash as it is then.
_BEGIN = Script("""
redis.call('HSET', KEYS[1], 'begin:' .. ARGV[1], '')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
""")

#: KEYS hash; ARGV run, "failure", "loss" or "unrun", what it was, seconds to live.
_END = Script("""
local begin = 'begin:' .. ARGV[1]
if ARGV[2] == 'failure' then
  redis.call('HSET', KEYS[1], 'failure:' .. ARGV[1], '', 'last', ARGV[3])
end
if ARGV[2] == 'loss' then
  redis.call('HSET', KEYS[1], begin, '')
else
  redis.call('HDEL', KEYS[1], begin)
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
""")

_FORGET = Script("return redis.call('DEL', KEYS[1])")

#: How a run ended: it raised or was stopped; its process died; its handler was not called.
End: TypeAlias = Literal["failure", "loss", "unrun"]

#: How often an unavailable store is tried again; until then no other run asks it.
_PROBE_SECONDS = 1.0
#: Ends that are kept for a store that is unavailable; then the oldest are lost.
_MAX_PENDING = 100_000


class Attempts(NamedTuple):
    """What became of a message's earlier runs."""

    failures: int = 0
    losses: int = 0
    #: Reason, class and text of the last failure.
    last: tuple[DeadLetterReason, str, str] = ("max-retries-exceeded", "", "")


class RunName(NamedTuple):
    """One run of one message; ``message_id`` is Pub/Sub's own, ``run`` unique."""

    subscription: str
    message_id: str
    run: str
    #: How long Pub/Sub keeps the message, so how long its counts are of use.
    ttl_seconds: float


class AttemptLog:
    """Counts failures and losses by subscription and message id. Thread-safe.

    The methods that return steps are for a run, which does them on its loop or in its thread. While
    the store is unavailable none of them waits for it: ends are kept here and written when it
    answers again, beginnings are unknown.
    """

    def __init__(self, store: Store, *, key_prefix: str = "convotic:") -> None:
        self._database = SyncDatabase(store)
        self._prefix = f"{key_prefix}attempts:"
        self._lock = threading.Lock()
        self._outage = Outage()
        self._pending: dict[RunName, tuple[End, str]] = {}
        #: Of these, failures by subscription and message id.
        self._known: Counter[tuple[str, str]] = Counter()
        self._writes = False

    def begin(self, name: RunName) -> Steps[Attempts | None]:
        """Note that a redelivered message's run begins; what became of its earlier runs.

        None while the store is unavailable.
        """
        found = yield from self._ask(Ask(_BEGIN, (self._key(name),), (name.run, _ttl(name))))
        return None if found is None else self._count(found, name)

    def end(self, name: RunName, end: End, last: str = "") -> Steps[bool]:
        """Note how a run ended; False if that has to be left to :meth:`end_later`."""
        answer = yield from self._ask(self._end(name, end, last))
        return answer is not None

    def forget(self, name: RunName) -> Steps[None]:
        """Drop the counts: the message has succeeded. Idempotent."""
        yield from self._ask(Ask(_FORGET, (self._key(name),), ()))

    def end_later(self, name: RunName, end: End, last: str = "") -> None:
        """Note how a run ended, from a thread of this log's own. Does not block."""
        with self._lock:
            self._pending[name] = end, last
            self._known[name[:2]] += end == "failure"
            if len(self._pending) > _MAX_PENDING:
                self._settle(next(iter(self._pending)))
        self._start_writing()

    def known_failures(self, subscription: str, message_id: str) -> int:
        """Return how many failures of a message this process has still to write."""
        return self._known.get((subscription, message_id), 0)

    def _settle(self, name: RunName) -> None:
        """Drop what is written; with the lock held."""
        end, _ = self._pending.pop(name)
        self._known[name[:2]] -= end == "failure"
        if self._known[name[:2]] <= 0:
            del self._known[name[:2]]

    def _ask(self, question: Ask) -> Steps[Any]:
        """Return the store's answer; None if it does not answer; then no run asks for a while."""
        if self._outage.is_on:
            return None
        try:
            return (yield question)
        except StoreUnavailable as error:
            self._miss(error)
            return None

    def _count(self, found: Sequence[str], name: RunName) -> Attempts:
        fields = dict(zip(found[::2], found[1::2], strict=True))
        fields.pop(f"begin:{name.run}", None)
        failures = sum(field.startswith("failure:") for field in fields)
        losses = sum(field.startswith("begin:") for field in fields)
        if "last" not in fields:
            return Attempts(failures, losses)
        reason, kind, text = json.loads(fields["last"])
        return Attempts(failures, losses, (reason, kind, text))

    def _end(self, name: RunName, end: End, last: str) -> Ask:
        return Ask(_END, (self._key(name),), (name.run, end, last, _ttl(name)))

    def _key(self, name: RunName) -> str:
        return f"{self._prefix}{name.subscription}:{name.message_id}"

    # -- while the store is unavailable ------------------------------------------------------------

    def _miss(self, error: StoreUnavailable) -> None:
        if self._outage.miss():
            logger.log(
                logging.ERROR if isinstance(error, StoreRefused) else logging.WARNING,
                "The store is unavailable; until it answers, runs are counted in this process "
                "and no message is given up for lost workers: %s",
                error,
                extra={"action": "store_unavailable"},
            )
        self._start_writing()

    def _start_writing(self) -> None:
        with self._lock:
            if self._writes:
                return
            self._writes = True
        try:
            threading.Thread(target=self._write, name="convotic-attempts", daemon=True).start()
        except RuntimeError as error:  # no thread left: the next end tries again
            logger.error("Counts of runs can't be written now: %s", error)  # noqa: TRY400
            with self._lock:
                self._writes = False
            self._outage.end()

    def _write(self) -> None:
        """Write what is pending, and try until the store answers."""
        never = threading.Event()
        while True:
            try:
                self._write_pending()
            except StoreUnavailable as error:
                self._miss(error)
                never.wait(_PROBE_SECONDS)
                continue
            except Exception:
                logger.exception("Counts of runs could not be written; they are dropped")
                with self._lock:
                    self._pending.clear()
                    self._known.clear()
            with self._lock:
                if self._pending:
                    continue
                was_unavailable = self._outage.end()
                self._writes = False
            if was_unavailable:
                logger.info("The store answers again", extra={"action": "store_available"})
            return

    def _write_pending(self) -> None:
        with self._lock:
            pending = list(self._pending.items())
        if not pending:  # a write that needs memory, as all that matter do
            self._run(Ask(_BEGIN, (f"{self._prefix}probe",), ("probe", "1")))
        for name, (end, last) in pending:
            self._run(self._end(name, end, last))
            with self._lock:
                if self._pending.get(name) == (end, last):
                    self._settle(name)

    def _run(self, question: Ask) -> None:
        self._database.run(question.script, question.keys, *question.arguments)


def describe_failure(settlement: RetryRun) -> str:
    """Return what the store keeps about the last failure."""
    return json.dumps([settlement.reason, settlement.error_type, settlement.error_message])


def _ttl(name: RunName) -> str:
    return str(max(1, int(name.ttl_seconds)))
