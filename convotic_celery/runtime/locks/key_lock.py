"""Runs a key once: the options ``deduplicate`` and ``concurrency_key``, before and after a run.

Written once for coroutines and plain code: the steps are generators that yield what they need, a
question to the store or a pause (``runtime/delivery/steps.py``).

While a key is busy or the store unavailable, the run waits in its slot with its lease held, so that
Pub/Sub counts no delivery; only after a while is the message deferred.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from convotic_celery.context.database import AsyncDatabase, SyncDatabase
from convotic_celery.context.records import new_token
from convotic_celery.errors import StoreUnavailable
from convotic_celery.runtime.celery_internals import is_stopping
from convotic_celery.runtime.delivery.settlement import Deferred, KeySucceeded
from convotic_celery.runtime.delivery.steps import Ask, Pause, Steps
from convotic_celery.runtime.locks import scripts
from convotic_celery.runtime.locks.outage import StoreOutage
from convotic_celery.runtime.locks.renewer import LOCK_SECONDS, HeldLock, LockRenewer
from convotic_celery.sdk.selector import describe_callable, select_key

if TYPE_CHECKING:
    from convotic_celery.context.store import Store
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.sdk.message import WorkerMessage

__all__ = ["HeldKeys", "KeyLock", "KeyStore", "WaitLimits"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 1.0
_STOPPING_DELAY_SECONDS = 1.0
#: Of a key, in the line about a duplicate.
_MAX_SHOWN_CHARACTERS = 64


class RunDeadline(Protocol):
    """What this needs of :class:`convotic_celery.runtime.execution.deadline.RunDeadline`."""

    fencing_token: int | None

    @property
    def time_left(self) -> float:
        """Seconds until the run is stopped."""
        ...

    def restart(self, limit_seconds: float) -> bool:
        """Restart the run's clock; False if the lease can't be held from here."""
        ...

    def lose(self) -> None:
        """Stop the run: another one may have its key. Thread-safe."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How many seconds a run waits in its slot before its message is deferred."""

    #: For the run that has its key: most have ended by then.
    busy: float = 2.0
    #: For a slot among a concurrency key's runs: waiting is the rule there, not the exception.
    place: float = 60.0
    #: A store that is unavailable for minutes makes a pause of minutes.
    store: float = 600.0


class KeyStore:
    """Where the keys are, and what renews their locks; one per process. Thread-safe."""

    def __init__(self, store: Store, *, key_prefix: str) -> None:
        self.asynchronous = AsyncDatabase(store)
        self.synchronous = SyncDatabase(store)
        self.renewer = LockRenewer(self.synchronous)
        self.prefix = key_prefix

    async def do_async(self, step: Ask | Pause) -> Any:
        """Do a run's step on the running loop."""
        if isinstance(step, Ask):
            return await self.asynchronous.run(step.script, step.keys, *step.arguments)
        await asyncio.sleep(step.seconds)
        return None

    def do_sync(self, step: Ask | Pause) -> Any:
        """Do a run's step in this thread."""
        if isinstance(step, Ask):
            return self.synchronous.run(step.script, step.keys, *step.arguments)
        threading.Event().wait(step.seconds)
        return None


@dataclass(eq=False, slots=True)
class HeldKeys:
    """What one run has taken."""

    token: str = field(default_factory=new_token)
    dedup_key: str | None = None
    place_key: str | None = None
    locks: list[HeldLock] = field(default_factory=list)


class KeyLock:
    """The keys of one handler's messages."""

    def __init__(
        self, definition: HandlerDefinition, keys: KeyStore, patience: WaitLimits | None = None
    ) -> None:
        options = definition.options
        self._patience = patience or WaitLimits()
        self._deduplicate = options.deduplicate
        self._key_name = describe_callable(options.deduplicate)
        self._concurrency_key = options.concurrency_key
        self._limit = str(options.concurrency_key_limit)
        self._waits_for_store = options.on_store_loss == "wait"
        self._window = str(int(options.deduplicate_window * 1000))
        self._run_limit = options.run_limit
        self._delay = min(600.0, max(1.0, options.ack_deadline))
        self._renewer = keys.renewer
        self._fence = f"{keys.prefix}fence"
        self._dedup_prefix = f"{keys.prefix}dedup:{definition.subscription}:"
        self._place_prefix = f"{keys.prefix}concurrency:{definition.subscription}:"
        self._duration = str(int(LOCK_SECONDS * 1000))
        queue = definition.queue
        self._unprotected = StoreOutage(
            f"messages of {queue} run without protection",
            f"%d runs of {queue} had no protection",
        )
        self._unfreed = StoreOutage(
            f"keys of {queue} are freed only when their locks expire",
            f"%d keys of {queue} were left until their locks expire",
        )

    def acquire(self, message: WorkerMessage[Any], control: RunDeadline) -> Steps[HeldKeys]:
        """Take the message's keys.

        Raises:
            KeySucceeded: It has succeeded already.
            Deferred: A key is busy, or the store unavailable, for long.
            InvalidMessage: It has no key.
        """
        held = HeldKeys()
        dedup_key = self._deduplicate and select_key(self._deduplicate, message)
        place_key = self._concurrency_key and select_key(self._concurrency_key, message)
        try:
            if dedup_key:
                yield from self._lock(held, self._dedup_prefix + dedup_key, control)
            if place_key:
                yield from self._enter(held, self._place_prefix + place_key, control)
        except StoreUnavailable as error:  # on_store_loss="run"
            self._unprotected.miss(error)
        except BaseException:
            yield from self.release(held)
            raise
        return held

    def complete(self, held: HeldKeys, control: RunDeadline) -> Steps[None]:
        """Remember that the run succeeded, and free what it has."""
        self._drop_locks(held)
        if held.dedup_key:
            keys = (held.dedup_key, held.place_key) if held.place_key else (held.dedup_key,)
            arguments = (held.token, self._window)
            try:
                mine = yield from self._ask(
                    Ask(scripts.COMPLETE, keys, arguments),
                    control,
                    patience=control.time_left,
                )
            except (StoreUnavailable, Deferred) as error:
                logger.error(  # noqa: TRY400 - the text is the store's, no traceback of ours helps
                    "The success of %s could not be recorded, a duplicate would run: %s",
                    held.dedup_key,
                    error,
                )
            else:
                held.place_key = None
                if not mine:
                    logger.error("Another run has taken %s before this one ended", held.dedup_key)
            held.dedup_key = None
        yield from self.release(held)

    def release(self, held: HeldKeys) -> Steps[None]:
        """Free what the run has, without success. What can't be freed ends with its lock."""
        self._drop_locks(held)
        taken = [
            (scripts.RELEASE, held.dedup_key),
            (scripts.LEAVE, held.place_key),
        ]
        held.dedup_key = held.place_key = None
        for script, key in taken:
            if key:
                try:
                    yield Ask(script, (key,), (held.token,))
                except StoreUnavailable as error:
                    self._unfreed.miss(error)
                else:
                    self._unfreed.end()

    def _lock(self, held: HeldKeys, key: str, control: RunDeadline) -> Steps[None]:
        question = Ask(scripts.CLAIM, (key, self._fence), (held.token, self._duration))
        waiting = _Waiting(control, "its key is busy", self._patience.busy, self._delay)
        while True:
            answer, detail = yield from self._ask(question, control)
            if answer == "done":
                shown = key.removeprefix(self._dedup_prefix)[:_MAX_SHOWN_CHARACTERS]
                raise KeySucceeded(
                    f"a message with the same {self._key_name} has succeeded: {shown}"
                )
            if answer == "claimed":
                break
            yield from waiting.pause(self._run_limit)
        held.dedup_key = key
        control.fencing_token = int(detail)
        lock = HeldLock(
            keys=(key, self._fence),
            arguments=(held.token, self._duration),
            renewal=scripts.RENEW,
            taking=scripts.CLAIM,
            freeing=scripts.RELEASE,
            on_lost=control.lose,
        )
        self._keep(held, lock)

    def _enter(self, held: HeldKeys, key: str, control: RunDeadline) -> Steps[None]:
        arguments = (held.token, self._duration, self._limit)
        question = Ask(scripts.ENTER, (key,), arguments)
        waiting = _Waiting(
            control, "its concurrency key is busy", self._patience.place, self._delay
        )
        while not (yield from self._ask(question, control)):
            yield from waiting.pause(self._run_limit)
        held.place_key = key
        lock = HeldLock(
            keys=(key,),
            arguments=arguments,
            renewal=scripts.STAY,
            taking=scripts.ENTER,
            freeing=scripts.LEAVE,
            on_lost=control.lose,
        )
        self._keep(held, lock)

    def _ask(
        self, question: Ask, control: RunDeadline, *, patience: float | None = None
    ) -> Steps[Any]:
        """Ask until the store answers; raises StoreUnavailable if the handler is not to wait."""
        seconds = self._patience.store if patience is None else patience
        waiting = _Waiting(control, "the store is unavailable", seconds, self._delay)
        while True:
            try:
                answer = yield question
            except StoreUnavailable:
                if not self._waits_for_store:
                    raise
            else:
                self._unprotected.end()
                return answer
            yield from waiting.pause(self._run_limit)

    def _keep(self, held: HeldKeys, lock: HeldLock) -> None:
        held.locks.append(lock)
        self._renewer.keep(lock)

    def _drop_locks(self, held: HeldKeys) -> None:
        for lock in held.locks:
            self._renewer.drop(lock)
        held.locks.clear()


class _Waiting:
    """One wait of one run: ever longer pauses, up to its limit; then the message is deferred."""

    def __init__(self, control: RunDeadline, reason: str, patience: float, delay: float) -> None:
        self._control = control
        self._reason = reason
        self._patience = patience
        self._delay = delay
        self._waited = 0.0
        self._next = _FIRST_PAUSE_SECONDS

    def pause(self, run_limit: float) -> Steps[None]:
        """Wait a little, with the lease held for a whole run from then on; raises Deferred."""
        if is_stopping():
            raise Deferred(self._reason, _STOPPING_DELAY_SECONDS)
        if self._waited >= self._patience:
            raise Deferred(self._reason, self._delay)
        yield Pause(self._next)
        self._waited += self._next
        self._next = min(_LAST_PAUSE_SECONDS, 2 * self._next)
        if not self._control.restart(run_limit):
            # A prefork child: its parent stops it at the deadline, however long it has waited.
            self._patience = min(self._patience, run_limit / 4)
