"""The one seam for whatever watches a worker's runs: log lines, outcomes, metrics, traces.

An observer derives from :class:`RunObserver`, overrides what it wants and is added once a process::

    observers.add(MyObserver())

All is reported by the worker's process, also with ``-P prefork``, whose children report nothing.
Without observers, a report costs one truth test.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.delivery.settlement import Settlement
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = [
    "MessageSettled",
    "MessageTaken",
    "ObservedMessage",
    "Observers",
    "RunBegan",
    "RunObserver",
    "observers",
]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)  # not frozen: one is made for each message
class ObservedMessage:
    """One delivery of a message. The same object in all its events, so it can be a key."""

    definition: HandlerDefinition
    #: What Pub/Sub said. In the default pool its run corrects it (attempt, id of a replay); the
    #: worker of ``-P prefork`` has it as it was on arrival.
    facts: MessageFacts
    #: Celery's id of the task.
    task_id: str

    @property
    def handler(self) -> str:
        """The handler's name, which is its queue's and its task's."""
        return self.definition.queue

    @property
    def message_id(self) -> str:
        """``message.id``: of the first publish, for a replay."""
        return self.facts["message_id"]

    @property
    def published_at(self) -> datetime:
        """Timezone-aware."""
        return self.facts["published_at"]

    @property
    def published(self) -> float:
        """``published_at`` in seconds since the epoch."""
        return self.published_at.timestamp()

    @property
    def attempt(self) -> int:
        """1 on the first run, as far as it is known."""
        return self.facts["attempt"]

    @property
    def delivery_attempt(self) -> int:
        """How often Pub/Sub says that it has delivered the message; 0 where it does not count."""
        return self.facts["delivery_attempt"]


@dataclass(slots=True, eq=False)
class MessageTaken:
    """A worker has taken a message from its queue."""

    message: ObservedMessage
    #: Seconds since the epoch, as in all events.
    at: float


@dataclass(slots=True, eq=False)
class RunBegan:
    """A slot of the pool has begun with a message. A handler with a key may wait for that first."""

    message: ObservedMessage
    at: float

    @property
    def queue_seconds(self) -> float:
        """Time from the publish to the run."""
        return max(0.0, self.at - self.message.published)


@dataclass(slots=True, eq=False)
class MessageSettled:
    """It is decided what becomes of a delivery: once for each that a worker lets go.

    ``settlement`` says what: :class:`.Ack` with its outcome (succeeded, dropped, duplicate,
    expired, other_target, revoked) and reason, :class:`.RetryRun`, :class:`.Defer`, :class:`.Fail`
    (dead-lettered) or :class:`.ReturnUnrun`. The server has not confirmed it yet.
    """

    message: ObservedMessage
    settlement: Settlement
    at: float
    #: When its run began; None if none did.
    began_at: float | None = None
    #: What the handler raised, or Celery's ``Retry`` with that in ``exc``.
    error: BaseException | None = None
    #: Its traceback as text; "" if there is no error, or none was kept.
    traceback: str = ""
    #: What a dead letter has beside its data and attributes; None if it is none.
    dead_letter: Mapping[str, str] | None = None

    @property
    def duration_seconds(self) -> float | None:
        """How long it ran; None if it did not, also where that was found out in a slot."""
        match self.settlement:
            case Defer() | Fail(attempts=0) | Ack(outcome="duplicate"):
                return None
        return None if self.began_at is None else max(0.0, self.at - self.began_at)

    @property
    def queue_seconds(self) -> float | None:
        """Time from the publish to the run; None if it did not run."""
        return None if self.began_at is None else max(0.0, self.began_at - self.message.published)

    @property
    def attempt(self) -> int:
        """The number of this run; of a dead letter, how many runs it had (0: none)."""
        match self.settlement:
            case Fail():
                return self.settlement.attempts
            case RetryRun(attempt=attempt) if attempt:
                return attempt
        return self.message.attempt

    @property
    def next_at(self) -> float | None:
        """When the message is delivered again, at the earliest; None if it is not, or at once."""
        match self.settlement:
            case RetryRun() | Defer():
                return self.at + self.settlement.delay_seconds
        return None


Event: TypeAlias = MessageTaken | RunBegan | MessageSettled


class RunObserver:
    """Base of observers; override the events that you want.

    Called on the thread where the fact arises (the pool's loop and threads, the transport's I/O
    thread, the worker's main thread), several at a time: be thread-safe, be fast, never block.
    """

    #: Whether ``message_settled`` is called for plain successes, nearly all there is.
    hears_successes = True

    def message_taken(self, event: MessageTaken) -> None:
        """A message was taken from its queue."""

    def run_began(self, event: RunBegan) -> None:
        """A message's run has begun."""

    def message_settled(self, event: MessageSettled) -> None:
        """It is decided what becomes of a message."""


class Observers:
    """The observers, by kind of event: a tuple each, empty without any. Thread-safe.

    An observer that raises is logged the first time, and disturbs neither runs nor others.
    """

    def __init__(self) -> None:
        self.taken: tuple[Callable[[MessageTaken], None], ...] = ()
        self.began: tuple[Callable[[RunBegan], None], ...] = ()
        self.settled: tuple[Callable[[MessageSettled], None], ...] = ()
        #: Those of ``settled`` that want to hear of successes.
        self.succeeded: tuple[Callable[[MessageSettled], None], ...] = ()
        self._added: tuple[RunObserver, ...] = ()
        self._blamed: set[str] = set()
        self._lock = threading.Lock()

    @property
    def added(self) -> tuple[RunObserver, ...]:
        """All of them."""
        return self._added

    def add(self, observer: RunObserver) -> None:
        """Report to an observer from now on. Adding it twice is adding it once."""
        with self._lock:
            if observer not in self._added:
                self._set((*self._added, observer))

    def remove(self, observer: RunObserver) -> None:
        """Stop reporting to it. An event that is under way may still reach it."""
        with self._lock:
            self._set(tuple(each for each in self._added if each is not observer))

    def report(self, listeners: tuple[Callable[[Any], None], ...], event: Event) -> None:
        """Tell an event to those listeners. Raises nothing."""
        for listener in listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - whatever it is, it costs no message
                self._blame(listener, error)

    def _set(self, added: tuple[RunObserver, ...]) -> None:
        self._added = added
        self.taken = tuple(
            o.message_taken for o in added if _overrides(o, RunObserver.message_taken)
        )
        self.began = tuple(o.run_began for o in added if _overrides(o, RunObserver.run_began))
        settled = [o for o in added if _overrides(o, RunObserver.message_settled)]
        self.settled = tuple(o.message_settled for o in settled)
        self.succeeded = tuple(o.message_settled for o in settled if o.hears_successes)

    def _blame(self, listener: Callable[[Any], None], error: Exception) -> None:
        name = getattr(listener, "__qualname__", repr(listener))
        if name not in self._blamed:
            self._blamed.add(name)
            logger.error(
                "%s failed; no message is affected, and its further failures are not logged",
                name,
                exc_info=error,
                extra={"action": "observer_failed"},
            )


def _overrides(observer: RunObserver, method: Callable[..., None]) -> bool:
    return getattr(type(observer), method.__name__) is not method


#: This process's.
observers = Observers()
