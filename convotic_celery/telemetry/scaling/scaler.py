"""Keeps the number of workers that are needed, even while none runs: :class:`Scaler`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from convotic_celery.errors import ConvoticError
from convotic_celery.telemetry.scaling.demand import count_waiting, needed_workers
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.outage import Outage

if TYPE_CHECKING:
    from convotic_celery.telemetry.scaling.reports import Known
    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = ["Broker", "Demand", "HandlerDemand", "Queue", "Scaler", "Store"]

logger = logging.getLogger(__name__)

#: How often everything is read; the service's late figures, and subscriptions that no worker
#: pulls, less often.
LOOK_SECONDS = 2.0
_MONITORING_SECONDS = 60.0
_PEEK_SECONDS = 5.0
#: How long a message found in a subscription counts: each look is a delivery.
_SEEN_SECONDS = 60.0
#: A delayed message due this soon needs a worker to publish it.
_DUE = timedelta(seconds=20)
#: What is older is not known any more.
_FRESH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that workers pull."""

    name: str
    subscription: str
    #: Of one worker, if none says so.
    slots: int


class Broker(Protocol):
    """What the broker can be asked. Every method blocks and raises PubsubTransportError."""

    def backlog_sizes(self, subscriptions: Iterable[str]) -> Mapping[str, BacklogSize]:
        """Return what is known of subscriptions."""
        ...

    def find_waiting(self, subscriptions: Iterable[str]) -> set[str]:
        """Look into subscriptions; return those that have messages."""
        ...


class Store(Protocol):
    """What the store can be asked. Every method blocks and raises StoreUnavailable."""

    def read_reports(self) -> Known:
        """Return what workers say."""
        ...

    def read_paused(self) -> set[str]:
        """Return the queues that are paused."""
        ...

    def next_due(self) -> datetime | None:
        """Return when the next delayed message is due."""
        ...


@dataclass(frozen=True, slots=True)
class HandlerDemand:
    """What one queue needs, and why."""

    #: Workers that it needs, if it were alone in them.
    needed: int
    #: Messages that wait for a slot, as far as is known.
    waiting: float
    #: Slots that are taken, in all workers.
    busy: float
    #: Runs that end, a second.
    rate: float
    #: Of a run; None: not known.
    run_seconds: float | None
    #: Workers that pull it.
    workers: int


@dataclass(frozen=True, slots=True)
class Demand:
    """How many workers are needed."""

    #: For all handlers together: each worker has slots for all of them.
    needed: int
    #: Workers that report.
    workers: int
    handlers: Mapping[str, HandlerDemand] = field(default_factory=dict)


class Scaler:
    """Looks every two seconds, on a thread of its own. Thread-safe.

    Args:
        queues: All that workers pull.
        broker: Returns the broker; may block.
        store: The store.
        drain_seconds: In how many seconds a backlog should be worked off.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        queues: Iterable[Queue],
        broker: Callable[[], Broker],
        store: Store,
        *,
        drain_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = tuple(queues)
        self._broker = broker
        self._store = store
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._sizes: Mapping[str, BacklogSize] = {}
        self._sizes_at = self._peeked_at = float("-inf")
        self._seen_at: dict[str, float] = {}
        self._demand = Demand(0, 0)
        self._demand_at = float("-inf")
        self._problem = "nothing is known yet"
        self._outage = Outage()

    def start(self) -> None:
        """Start to look."""
        threading.Thread(target=self._work, name="convotic-scaler", daemon=True).start()

    @property
    def demand(self) -> Demand | None:
        """What was found last; None while it is not known: unknown is not zero."""
        return self._demand if self.age_seconds <= _FRESH_SECONDS else None

    @property
    def age_seconds(self) -> float:
        """Since what was found last."""
        return self._clock() - self._demand_at

    @property
    def problem(self) -> str:
        """Why the last look found nothing; "" if it did."""
        return self._problem

    def look(self) -> Demand:
        """Look once. Blocks; raises ConvoticError or PubsubTransportError."""
        known = self._store.read_reports()
        paused = self._store.read_paused()
        queues = [each for each in self._queues if each.name not in paused]
        self._read_sizes(queues)
        for each in queues:
            if known.of(each.name):
                self._seen_at.pop(each.name, None)
        self._peek([q for q in queues if not known.of(q.name)])
        handlers = {each.name: self._decide(each, known) for each in queues}
        needed = max((each.needed for each in handlers.values()), default=0)
        if needed == 0 and self._is_due():
            needed = 1
        return Demand(needed, len(known.workers), handlers)

    def look_again(self) -> None:
        """Look once, and keep what was found; log what prevents it, once."""
        try:
            self._demand = self.look()
        except (ConvoticError, PubsubTransportError, OSError) as error:
            self._problem = str(error)
            if self._outage.miss():
                logger.warning("How many workers are needed is not known: %s", error)
        except Exception as error:
            logger.exception("The number of needed workers can't be computed")
            self._problem = f"{type(error).__name__}: {error}"
        else:
            self._demand_at, self._problem = self._clock(), ""
            if self._outage.end():
                logger.info("How many workers are needed is known again")

    def _work(self) -> None:
        while True:
            began = self._clock()
            self.look_again()
            time.sleep(max(0.1, LOOK_SECONDS - (self._clock() - began)))  # noqa: TID251 - its clock

    def _decide(self, queue: Queue, known: Known) -> HandlerDemand:
        reports = known.of(queue.name)
        size = self._sizes.get(queue.subscription)
        is_seen = self._clock() - self._seen_at.get(queue.name, float("-inf")) < _SEEN_SECONDS
        waiting = count_waiting(reports, size, is_seen=is_seen)
        run_seconds = known.run_seconds.get(queue.name)
        slots = max((each.slots for each in reports), default=queue.slots)
        needed = needed_workers(
            reports,
            waiting,
            slots=slots,
            run_seconds=run_seconds,
            drain_seconds=self._drain_seconds,
        )
        busy, rate = sum(each.busy for each in reports), sum(each.rate for each in reports)
        return HandlerDemand(needed, waiting, busy, rate, run_seconds, len(reports))

    def _read_sizes(self, queues: Iterable[Queue]) -> None:
        """Read backlogs: always where they are exact, otherwise as often as they change."""
        is_exact = any(each.leased is not None for each in self._sizes.values())
        wait = 0.0 if is_exact else _MONITORING_SECONDS
        if self._sizes and self._clock() - self._sizes_at < wait:
            return
        if not self._sizes and self._clock() - self._sizes_at < _PEEK_SECONDS:
            return  # nobody tells: Google's emulator, or no right to ask Monitoring
        self._sizes = self._broker().backlog_sizes([each.subscription for each in queues])
        self._sizes_at = self._clock()

    def _peek(self, queues: Iterable[Queue]) -> None:
        """Look into subscriptions that no worker pulls and of which nothing exact is known."""
        now = self._clock()
        unknown = {
            q.subscription: q.name
            for q in queues
            if (size := self._sizes.get(q.subscription)) is None or size.leased is None
            if now - self._seen_at.get(q.name, float("-inf")) >= _SEEN_SECONDS
        }
        if not unknown or now - self._peeked_at < _PEEK_SECONDS:
            return
        self._peeked_at = now
        for subscription in self._broker().find_waiting(list(unknown)):
            self._seen_at[unknown[subscription]] = self._clock()

    def _is_due(self) -> bool:
        due = self._store.next_due()
        return due is not None and due <= datetime.now(UTC) + _DUE
