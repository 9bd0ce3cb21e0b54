"""Bindings of queues to exchanges, kept on the server, where every publisher finds them.

Pub/Sub knows neither. So an exchange is a topic without publishers, and a binding is a
subscription of it without pullers: its name says all (``routing.py``). A publisher lists
them and sends to the queues that fit. What Celery makes by itself, a queue whose exchange and
routing key have its name, needs none of that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from convotic_pubsub.celery.envelope import EnvelopePolicy
from convotic_pubsub.celery.routing import Binding, binding_id, exchange_id, read_binding
from convotic_pubsub.errors import PublishError, PubsubTransportError, TopicNotFound
from convotic_pubsub.limits import MAX_RETENTION_SECONDS, MIN_RETENTION_SECONDS
from convotic_pubsub.outage import Outage
from convotic_pubsub.queue import QueueSpec

if TYPE_CHECKING:
    from convotic_pubsub.client.resources import Resources
    from convotic_pubsub.options import TransportOptions

__all__ = ["Bindings"]

logger = logging.getLogger(__name__)

#: What was read of an exchange is used this long.
_FRESH_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Exchange:
    """What is known of one exchange."""

    #: Declared by this process, and not undone.
    own: set[Binding]
    #: Read from the server.
    stored: frozenset[Binding] = frozenset()
    read_at: float | None = None
    reading: Future[list[str]] | None = None
    #: The last attempts to read failed.
    outage: Outage = field(default_factory=Outage)


class Bindings:
    """The bindings that one session has made or read. Thread-safe; methods block for a round trip.

    Args:
        options: the project and the prefix.
        resources: creates and deletes them.
        list_subscriptions: begins to list a topic's subscriptions, by their short names.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        options: TransportOptions,
        resources: Resources,
        *,
        list_subscriptions: Callable[[str], Future[list[str]]],
        clock: Callable[[], float],
    ) -> None:
        self._prefix = options.prefix
        self._resources = resources
        self._list_subscriptions = list_subscriptions
        self._clock = clock
        self._lock = threading.Lock()
        self._exchanges: dict[str, _Exchange] = {}

    def add(self, binding: Binding) -> None:
        """Bind a queue: every publisher sees it within five seconds, this process at once.

        Raises:
            PubsubTransportError: it can't be kept.
        """
        own = self._exchange(binding.exchange).own
        if binding in own:
            return
        if not binding.is_implied:
            self._resources.ensure(self._spec(binding))
        own.add(binding)

    def remove(self, binding: Binding) -> None:
        """Undo :meth:`add`, by any process. A binding that does not exist is no error."""
        exchange = self._exchange(binding.exchange)
        exchange.own.discard(binding)
        exchange.stored -= {binding}
        if not binding.is_implied:
            self._resources.delete(self._spec(binding), with_topic=False)

    def remove_queue(self, queue: str) -> None:
        """Undo all bindings of a queue that this process knows of."""
        for exchange in list(self._exchanges.values()):
            for binding in exchange.own | exchange.stored:
                if binding.queue == queue:
                    self.remove(binding)

    def find(self, exchange: str, routing_key: str, timeout_seconds: float | None) -> set[Binding]:
        """Return the bindings that fit; where nothing fits, the server was asked just now.

        Args:
            exchange: its name.
            routing_key: the message's.
            timeout_seconds: how long to wait for the server; None doesn't, and takes what is known.

        Raises:
            PubsubTransportError: nothing is known, and the server does not answer.
        """
        known = self._exchange(exchange)
        is_fresh = known.read_at is not None and self._clock() < known.read_at + _FRESH_SECONDS
        if not is_fresh:
            self._read(exchange, known, timeout_seconds)
        found = _fitting(known, routing_key)
        if not found and is_fresh and timeout_seconds is not None:
            self._read(exchange, known, timeout_seconds)
            found = _fitting(known, routing_key)
        return found

    def forked(self) -> None:
        """Forget, in a forked child, what was under way in its parent."""
        self._lock = threading.Lock()
        for exchange in self._exchanges.values():
            exchange.reading = None

    def _exchange(self, name: str) -> _Exchange:
        with self._lock:
            return self._exchanges.setdefault(name, _Exchange(set()))

    def _read(self, name: str, known: _Exchange, timeout_seconds: float | None) -> None:
        with self._lock:
            reading = known.reading
            if reading is None:
                reading = self._list_subscriptions(exchange_id(name, self._prefix))
                known.reading = reading
        reading.add_done_callback(partial(self._on_read, name, known))
        if timeout_seconds is None:
            return
        try:
            reading.result(timeout_seconds)
        except TopicNotFound:
            pass
        except (PubsubTransportError, TimeoutError) as error:
            if not (known.own or known.stored):  # else what is known is used for a while
                raise PublishError(
                    f"the bindings of exchange {name!r} can't be read, so nobody knows which "
                    f"queues get the message: {error or 'no answer'}"
                ) from error
            if known.outage.miss():
                logger.warning(
                    "The bindings of exchange %s can't be read; those that were read before are "
                    "used: %s",
                    name,
                    error or "no answer",
                    extra={"action": "bindings_unread"},
                )
            return
        self._on_read(name, known, reading)  # the callback may still be running

    def _on_read(self, name: str, known: _Exchange, reading: Future[list[str]]) -> None:
        with self._lock:
            if known.reading is not reading:
                return
            known.reading = None
        if reading.cancelled():  # the session is closing
            return
        error = reading.exception()
        if error is None or isinstance(error, TopicNotFound):
            read = map(read_binding, () if error else reading.result())
            known.stored = frozenset(each for each in read if each and each.exchange == name)
            known.outage.end()
        known.read_at = self._clock()

    def _spec(self, binding: Binding) -> QueueSpec:
        name = binding_id(binding, self._prefix)
        return QueueSpec(
            queue=name,
            topic=exchange_id(binding.exchange, self._prefix),
            subscription=name,
            policy=EnvelopePolicy(),
            message_retention_seconds=MIN_RETENTION_SECONDS,
            # Of a process that was killed: its queues are gone, and one day this is, too.
            expiration_seconds=0 if binding.queue else MAX_RETENTION_SECONDS,
            labels={"convotic": "binding"},
        )


def _fitting(known: _Exchange, routing_key: str) -> set[Binding]:
    return {each for each in known.own | known.stored if each.matches(routing_key)}
