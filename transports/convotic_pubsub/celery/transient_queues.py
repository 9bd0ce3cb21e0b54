"""Celery's transient traffic (remote control, replies, events, rpc), one subscription a process.

One ephemeral subscription serves every transient queue of a process; what arrives is handed to
the local queues that are bound to its exchange. So ``inspect ping`` leaves nothing behind, and the
number of subscriptions is that of processes, not of callers (celery/celery#9570 shows the other
way).

On the wire: kombu's envelope in ``data``; the attributes ``exchange`` and ``rk`` route it. Only
within its topic: an order comes by ``celery.control``, whatever is written in a message of
``celery.events``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.celery.control_subscription import (
    Consume,
    ControlSubscription,
    Topic,
    control_topic,
)
from convotic_pubsub.errors import TopicNotFound
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from convotic_pubsub.celery.routing import Binding
    from convotic_pubsub.client.resources import Resources
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.outgoing import Answer, IfMissing
    from convotic_pubsub.queue import PayloadDict, Received

__all__ = ["EVENTS", "MAX_UNCONFIRMED_EVENTS", "Publish", "TransientQueues"]

logger = logging.getLogger(__name__)

Receiver: TypeAlias = "Callable[[PayloadDict], None]"

#: The exchange of Celery's events.
EVENTS: Final = "celeryev"
#: So many messages with events may be on their way; what comes then is dropped.
MAX_UNCONFIRMED_EVENTS: Final = 16

#: A queue that is declared but not consumed keeps this many messages, then drops the oldest.
_MAX_HELD = 10_000


class Publish(Protocol):
    """How the session publishes; see :meth:`.Session.publish_confirmed`."""

    def publish(self, message: OutgoingMessage, *, retry: bool = True) -> Answer:
        """Publish and return at once."""
        ...

    def publish_confirmed(
        self, message: OutgoingMessage, *, if_missing: IfMissing = ..., retry: bool = True
    ) -> str:
        """Publish and wait for the confirmation."""
        ...


@dataclass(slots=True)
class _TransientQueue:
    bindings: set[Binding] = field(default_factory=set)
    receiver: Receiver | None = None
    held: deque[PayloadDict] = field(default_factory=lambda: deque(maxlen=_MAX_HELD))


class TransientQueues:
    """The transient queues of one session: declared, bound, consumed in this process. Thread-safe.

    Two topics carry their traffic: ``celery.control`` that of fanout, direct and anonymous
    exchanges, ``celery.events`` that of topic exchanges; apart, because every worker needs the
    first and only monitors the second. A process subscribes to what its queues need, when they
    need it.

    Args:
        options: the project and the prefix.
        resources: creates and deletes the subscriptions.
        publisher: sends.
        address: returns the server's address.
        consume: starts to pull a queue.
    """

    def __init__(
        self,
        options: TransportOptions,
        resources: Resources,
        publisher: Publish,
        *,
        address: Callable[[], str],
        consume: Consume,
    ) -> None:
        self._prefix = options.prefix
        self._publisher = publisher
        self._queues: dict[str, _TransientQueue] = {}
        self._unconfirmed = threading.Semaphore(MAX_UNCONFIRMED_EVENTS)
        #: Messages with events that were not sent.
        self.dropped_events = 0
        self._lock = threading.Lock()

        def subscribe(topic: Topic) -> ControlSubscription:
            return ControlSubscription(
                topic,
                options,
                resources,
                address=address,
                consume=consume,
                receive=lambda received: self._route(topic, received),
            )

        self.subscriptions = {"control": subscribe("control"), "events": subscribe("events")}

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    # -- queues -----------------------------------------------------------------------------------

    def declare(self, queue: str) -> None:
        """Make a local queue; messages published after this returns will reach it.

        Raises:
            PubsubTransportError: the subscription can't be made.
        """
        with self._lock:
            self._queues.setdefault(queue, _TransientQueue())
        self.subscriptions["control"].open()

    def bind(self, binding: Binding) -> None:
        """Let messages that fit reach a declared queue."""
        with self._lock:
            self._queues[binding.queue].bindings.add(binding)
        self.subscriptions[_topic_of(binding.kind)].open()

    def unbind(self, binding: Binding) -> None:
        """Undo :meth:`bind`."""
        with self._lock:
            if binding.queue in self._queues:
                self._queues[binding.queue].bindings.discard(binding)

    def delete(self, queue: str) -> None:
        """Forget a queue and what it holds."""
        with self._lock:
            self._queues.pop(queue, None)

    def consume(self, queue: str, receiver: Receiver) -> None:
        """Hand what the queue holds and gets to ``receiver``, which must not block."""
        with self._lock:
            entry = self._queues[queue]
            entry.receiver = receiver
            held = list(entry.held)
            entry.held.clear()
        for payload in held:
            receiver(payload)

    def cancel(self, queue: str) -> None:
        """Stop handing on; the queue holds what comes."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].receiver = None

    def get(self, queue: str) -> PayloadDict | None:
        """Return the oldest held message, None when there is none."""
        with self._lock:
            entry = self._queues.get(queue)
            return entry.held.popleft() if entry and entry.held else None

    def put_back(self, queue: str, payload: PayloadDict) -> None:
        """Put a message that was given out back at the head of its queue."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].held.appendleft(payload)

    def purge(self, queue: str) -> int:
        """Drop what the queue holds; return how many messages that were."""
        with self._lock:
            entry = self._queues.get(queue)
            count = len(entry.held) if entry else 0
            if entry:
                entry.held.clear()
            return count

    def size(self, queue: str) -> int:
        """Return how many messages the queue holds."""
        entry = self._queues.get(queue)
        return len(entry.held) if entry else 0

    # -- messages ---------------------------------------------------------------------------------

    def broadcast(
        self, data: bytes, exchange: str, kind: str, routing_key: str, *, retry: bool = True
    ) -> None:
        """Send an envelope to every process that listens; there may be none.

        Orders to workers (fanout) are confirmed, so that what the caller sends next (a task of the
        kind just revoked) does not leave before them; so are results (``rpc://``, no exchange),
        whose sender may end right after. Workers' answers and events don't block; events that a
        slow server would have to catch up with are dropped.

        Raises:
            PublishError: an order or a result was refused, or not confirmed in time.
        """
        values = {"exchange": exchange, "rk": routing_key}
        attributes = {name: value for name, value in values.items() if value}
        topic = control_topic(_topic_of(kind), self._prefix)
        message = OutgoingMessage(topic, data, attributes)
        if kind == "fanout" or not exchange:
            with contextlib.suppress(TopicNotFound):  # no process has ever listened
                self._publisher.publish_confirmed(message, retry=retry)
        elif exchange != EVENTS:
            self._publisher.publish(message)
        elif self._unconfirmed.acquire(blocking=False):
            future = self._publisher.publish(message)
            future.add_done_callback(lambda _: self._unconfirmed.release())
        else:
            self._report_drop()

    def _report_drop(self) -> None:
        self.dropped_events += 1
        if self.dropped_events == 1:
            logger.warning(
                "The server is too slow for Celery's events, and gets only some: %d messages with "
                "events have not been confirmed",
                MAX_UNCONFIRMED_EVENTS,
                extra={"action": "events_dropped"},
            )

    def _route(self, topic: Topic, received: Received) -> None:
        """Hand one message to the local queues that it is for (I/O thread).

        Raises:
            ValueError: it is no envelope.
        """
        exchange, key = received.attributes.get("exchange", ""), received.attributes.get("rk", "")
        with self._lock:
            targets = [
                entry
                for name, entry in self._queues.items()
                if (not exchange and topic == "control" and name == key)
                or any(
                    each.exchange == exchange
                    and _topic_of(each.kind) == topic
                    and each.matches(key)
                    for each in entry.bindings
                )
            ]
        for entry in targets:
            payload = decode_envelope(received.data)
            with self._lock:
                receiver = entry.receiver
                if receiver is None:
                    entry.held.append(payload)
            if receiver is not None:
                receiver(payload)

    def forked(self) -> None:
        """Forget, in a forked child, what belongs to its parent."""
        self._lock = threading.Lock()
        for subscription in self.subscriptions.values():
            subscription.forked()

    def close(self) -> None:
        """Delete the process's subscriptions. Idempotent."""
        for subscription in self.subscriptions.values():
            subscription.close()


def _topic_of(kind: str) -> Topic:
    return "events" if kind == "topic" else "control"
