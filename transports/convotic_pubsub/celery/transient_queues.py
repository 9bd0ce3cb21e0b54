"""Celery's transient traffic (remote control, replies, events, rpc), one subscription a process.

One ephemeral subscription serves every transient queue of a process; what arrives is handed to
the local queues that are bound to its exchange. So ``inspect ping`` leaves nothing behind, and the
number of subscriptions is that of processes, not of callers (celery/celery#9570 shows the other
way).

On the wire: kombu's envelope in ``data``; the attributes ``exchange`` and ``rk`` route it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.celery.process_slots import Slot, host_name
from convotic_pubsub.errors import PubsubTransportError, TopicNotFound
from convotic_pubsub.names import resource_id
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import (
    Acknowledge,
    Decision,
    History,
    Incident,
    PayloadDict,
    QueueSpec,
    Received,
)

if TYPE_CHECKING:
    from convotic_pubsub.consume.subscription import Subscription
    from convotic_pubsub.session import Session

__all__ = ["TransientQueues", "topic_matches"]

logger = logging.getLogger(__name__)

Receiver: TypeAlias = Callable[[PayloadDict], None]

#: A queue that is declared but not consumed keeps this many messages, then drops the oldest.
_MAX_HELD = 10_000
_MAX_ELSEWHERE = 10_000
#: A queue without a topic is looked for again after this: its workers may start later.
_ELSEWHERE_SECONDS = 60.0
_KINDS = ("control", "events")
#: Pub/Sub's least retention (10 minutes) and expiration (1 day).
_RETENTION_SECONDS, _EXPIRATION_SECONDS = 600, 86_400


@dataclass(slots=True)
class _TransientQueue:
    bindings: set[tuple[str, str, str]] = field(default_factory=set)
    receiver: Receiver | None = None
    held: deque[PayloadDict] = field(default_factory=lambda: deque(maxlen=_MAX_HELD))


class TransientQueues:
    """The transient queues of one session: declared, bound, consumed in this process. Thread-safe.

    Two topics carry their traffic: ``celery.control`` that of fanout, direct and anonymous
    exchanges, ``celery.events`` that of topic exchanges; apart, because every worker needs the
    first and only monitors the second. A process subscribes to what its queues need, when they
    need it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queues: dict[str, _TransientQueue] = {}
        self._lock = threading.Lock()
        self._subscriptions = {kind: _Subscription(self, session, kind) for kind in _KINDS}
        self._elsewhere: dict[str, float] = {}

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
        self._subscriptions["control"].open()

    def bind(self, queue: str, exchange: str, kind: str, routing_key: str) -> None:
        """Let messages of ``exchange`` that match ``routing_key`` reach a declared queue."""
        with self._lock:
            self._queues[queue].bindings.add((exchange, kind, routing_key))
        self._subscriptions[_topic_kind(kind)].open()

    def unbind(self, queue: str, exchange: str, kind: str, routing_key: str) -> None:
        """Undo :meth:`bind`."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].bindings.discard((exchange, kind, routing_key))

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
        """Put a message that was given out at the head of its queue again."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].held.appendleft(payload)

    def purge(self, queue: str) -> int:
        """Drop what the queue holds; return how many that were."""
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

    def cast(self, data: bytes, exchange: str, kind: str, routing_key: str) -> None:
        """Send an envelope to every process that listens; nobody may be there.

        Orders to workers (fanout) are confirmed, so that what the caller sends next (a task of the
        kind just revoked) does not leave before them; so are results (``rpc://``, no exchange),
        whose sender may end right after. Workers' answers and events don't block.

        Raises:
            PublishError: an order or a result was refused, or not confirmed in time.
        """
        values = {"exchange": exchange, "rk": routing_key}
        attributes = {name: value for name, value in values.items() if value}
        topic = self._subscriptions[_topic_kind(kind)].topic
        if kind == "fanout" or not exchange:
            with contextlib.suppress(TopicNotFound):  # no process has ever listened
                self._session.publish_confirmed(OutgoingMessage(topic, data, attributes))
        else:
            self._session.publish(OutgoingMessage(topic, data, attributes))

    def is_elsewhere(self, queue: str) -> bool:
        """Say whether a queue is known as a transient one of another process."""
        return self._session.clock() < self._elsewhere.get(queue, 0.0)

    def remember_elsewhere(self, queue: str) -> None:
        """Note that a queue has no topic, so that the next messages need not find out again."""
        self._elsewhere.pop(queue, None)
        self._elsewhere[queue] = self._session.clock() + _ELSEWHERE_SECONDS
        while len(self._elsewhere) > _MAX_ELSEWHERE:
            self._elsewhere.pop(next(iter(self._elsewhere)), None)

    def route(self, data: bytes, attributes: Mapping[str, str]) -> None:
        """Hand one message to the local queues that it is for (I/O thread)."""
        exchange, key = attributes.get("exchange", ""), attributes.get("rk", "")
        with self._lock:
            targets = [
                entry
                for name, entry in self._queues.items()
                if (not exchange and name == key)
                or any(b[0] == exchange and _matches(b[1], b[2], key) for b in entry.bindings)
            ]
        for entry in targets:
            payload = decode_envelope(data)
            with self._lock:
                receiver = entry.receiver
                if receiver is None:
                    entry.held.append(payload)
            if receiver is not None:
                receiver(payload)

    def forked(self) -> None:
        """Forget, in a forked child, what belongs to its parent."""
        self._lock = threading.Lock()
        for subscription in self._subscriptions.values():
            subscription.forked()

    def close(self) -> None:
        """Delete the process's subscriptions. Idempotent."""
        for subscription in self._subscriptions.values():
            subscription.close()


class _Subscription:
    """The one ephemeral subscription of this process on one of the two topics."""

    def __init__(self, queues: TransientQueues, session: Session, kind: str) -> None:
        self._queues = queues
        self._session = session
        self._kind = kind
        self._lock = threading.Lock()
        self._consumer: Subscription | None = None
        self._spec: QueueSpec | None = None
        self._slot: Slot | None = None
        self.topic = resource_id(f"celery.{kind}", session.options.prefix)

    def open(self) -> None:
        """Make the subscription, once."""
        self._session.check_process()
        with self._lock:
            if self._consumer is not None:
                return
            options = self._session.options
            scope = (
                f"{self._session.broker.address}/{options.project}/{options.prefix}/{self._kind}"
            )
            self._slot = Slot.take_first(scope)
            family = f"celery.{self._kind}.{host_name()}."
            name = resource_id(f"{family}{self._slot.number}", options.prefix)
            spec = self._spec = QueueSpec(
                queue=name,
                topic=self.topic,
                subscription=name,
                policy=_ControlPolicy(self._queues),
                ack_deadline_seconds=10,
                concurrency=1000,
                buffer_messages=0,
                message_retention_seconds=_RETENTION_SECONDS,
                expiration_seconds=_EXPIRATION_SECONDS,
                labels={"convotic": "ephemeral"},
            )
            # What an owner that was killed left in it (a shutdown order, say) is not for us.
            self._session.resources.delete(spec, with_topic=False)
            self._session.resources.ensure(spec, ephemeral=True)
            self._consumer = self._session.consume(spec, _never_offered)
        self._sweep(scope, resource_id(family, options.prefix))

    def _sweep(self, scope: str, family: str) -> None:
        """Delete the subscriptions of processes of this host that were killed.

        Those of other hosts can't be told from live ones; the service deletes them after a day.
        """
        try:
            names = self._session.resources.list_subscriptions(self.topic)
        except PubsubTransportError as error:  # a nicety: who may not list is none the worse
            logger.info(
                "Left-over control subscriptions can't be looked for: %s",
                error,
                extra={"action": "sweep_refused"},
            )
            return
        for name in names:
            number = name.removeprefix(family)
            if number == name or not number.isdecimal():
                continue
            slot = Slot.take(scope, int(number))
            if slot is not None:  # nobody has it: its owner is gone
                self._session.resources.delete_subscription(name)
                slot.release()

    def forked(self) -> None:
        """Let go, in a forked child, of the lock that keeps the parent's slot."""
        self._lock = threading.Lock()
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def close(self) -> None:
        """Delete the subscription."""
        with self._lock:
            consumer, self._consumer = self._consumer, None
            if consumer is None or self._spec is None or self._slot is None:
                return
            self._session.cancel(consumer)
            try:
                self._session.resources.delete(self._spec, with_topic=False)
            except PubsubTransportError as error:
                logger.info(
                    "Control subscription %s could not be deleted; the next process of this host "
                    "that starts does it: %s",
                    self._spec.subscription,
                    error,
                    extra={"action": "control_left_behind"},
                )
            self._slot.release()


def _topic_kind(exchange_type: str) -> str:
    return "events" if exchange_type == "topic" else "control"


class _ControlPolicy:
    """Routes a control message where it is received; nothing of it is ever run or retried."""

    def __init__(self, queues: TransientQueues) -> None:
        self._queues = queues

    def decide(self, received: Received, history: History | None) -> Decision:
        """Route the message to this process's queues."""
        del history
        try:
            self._queues.route(received.data, received.attributes)
        except ValueError as error:
            logger.warning(
                "Control message %s dropped: %s",
                received.message_id,
                error,
                extra={"action": "control_invalid"},
            )
        return Acknowledge("")

    async def load_history(self, received: Received) -> History | None:
        """Nothing is remembered."""

    async def record(self, received: Received, incident: Incident) -> None:
        """Nothing is remembered."""

    async def forget(self, received: Received) -> None:
        """Nothing is remembered."""


def _never_offered(_delivery: object) -> None:
    """Stand in for a channel: control messages are settled where they are received."""


def _matches(kind: str, pattern: str, key: str) -> bool:
    if kind == "fanout":
        return True
    if kind == "topic":
        return topic_matches(pattern, key)
    return pattern == key


@lru_cache(maxsize=4096)
def topic_matches(pattern: str, key: str) -> bool:
    """Say whether AMQP's topic pattern fits: ``*`` is one word, ``#`` any number of words.

    >>> topic_matches("worker.#", "worker.heartbeat"), topic_matches("*.x", "a.b.x")
    (True, False)
    """
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])
