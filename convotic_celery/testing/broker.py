"""Pub/Sub as a list in memory: published messages, waiting deliveries, and outcomes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from convotic_celery.errors import TopicHasNoSubscription
from convotic_celery.runtime.delivery.attributes import user_attributes
from convotic_pubsub.queue import Received

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_celery.testing.clock import MovingClock
    from convotic_pubsub.outgoing import OutgoingMessage, Sending

__all__ = ["DeadLetterSeen", "MemoryBroker", "Pending", "PublishedMessage", "RunSeen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMessage:
    """A published message, from the test or a handler."""

    id: str
    topic: str
    #: The parsed JSON; None without data.
    data: Any
    attributes: Mapping[str, str]
    ordering_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """The outcome of one delivery."""

    #: The handler's name, which is its queue's: ``custom.orders.new.shop``.
    handler: str
    #: ``message.id``: what ``publish`` returned; of a replay, that of the first publish.
    message_id: str
    #: 1 on the first run, 2 on the first retry.
    attempt: int
    #: ``succeeded``, ``retried``, ``dropped``, ``duplicate``, ``deferred``, ``dead_lettered``, or
    #: the reason why it was acknowledged without a run (``expired``, ``other-target``).
    outcome: str
    #: What the handler raised, with its traceback; None if it returned or did not run.
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSeen:
    """A message that went to its handler's dead-letter topic."""

    handler: str
    message_id: str
    #: The parsed JSON; the bytes if it is not JSON.
    data: Any
    #: The publisher's.
    attributes: Mapping[str, str]
    #: ``convotic-dead-letter-reason``.
    reason: str
    error: BaseException | None
    raw: Received = field(repr=False)
    #: All attributes of the dead letter, as an operator sees them.
    all_attributes: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Pending:
    """A message that waits for one handler."""

    definition: HandlerDefinition
    received: Received
    due_at: datetime
    deliveries: int = 0


class MemoryBroker:
    """A :class:`~convotic_celery.context.publishing.TopicPublisher`; thread-safe.

    Args:
        definitions: The handlers.
        clock: The test's time.
        topics: Topics without a handler here that exist nevertheless.
    """

    def __init__(
        self, definitions: Iterable[HandlerDefinition], clock: MovingClock, topics: Iterable[str]
    ) -> None:
        self._definitions = tuple(definitions)
        self._topics = {*topics, *(each.topic for each in self._definitions)}
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.published: list[PublishedMessage] = []
        self.pending: list[Pending] = []

    def publish(self, message: OutgoingMessage, *, sending: Sending = "batched") -> Future[str]:
        """Keep a message, one copy for each handler of its topic; confirmed at once.

        The future of one to a topic that does not exist has a TopicHasNoSubscription.
        """
        del sending
        future: Future[str] = Future()
        problem = self.problem_with(message.topic)
        if problem is not None:
            future.set_exception(problem)
            return future
        handlers = [each for each in self._definitions if each.topic == message.topic]
        with self._lock:
            message_id = f"m-{next(self._numbers)}"
            seen = PublishedMessage(
                id=message_id,
                topic=message.topic,
                data=parse_data(message.data),
                attributes=user_attributes(message.attributes),
                ordering_key=message.ordering_key,
            )
            self.published.append(seen)
            for definition in handlers:
                received = self._receive(definition, message_id, message)
                self.pending.append(Pending(definition, received, self._clock.now()))
        future.set_result(message_id)
        return future

    def problem_with(self, topic: str) -> TopicHasNoSubscription | None:
        """Return what is wrong with publishing to a topic; None: nothing."""
        if topic in self._topics:
            return None
        near = get_close_matches(topic, self._topics, n=1)
        modules = ", ".join(sorted({each.module for each in self._definitions})) or "none"
        return TopicHasNoSubscription(
            topic,
            near[0] if near else "",
            f"Modules under test: {modules}. If others handle the topic: "
            f"convotic_app(…, topics=[{topic!r}])",
        )

    def take_due(self) -> list[Pending]:
        """Remove and return what is due now, in the order it was published."""
        now = self._clock.now()
        with self._lock:
            due = [each for each in self.pending if each.due_at <= now]
            self.pending = [each for each in self.pending if each.due_at > now]
        return due

    def put_back(self, pending: Pending, delay_seconds: float) -> None:
        """Have it delivered again later."""
        pending.due_at = self._clock.now() + timedelta(seconds=max(1.0, delay_seconds))
        with self._lock:
            self.pending.append(pending)

    def next_due(self) -> datetime | None:
        """Return when the next message is due; None if there is none."""
        with self._lock:
            return min((each.due_at for each in self.pending), default=None)

    def _receive(
        self, definition: HandlerDefinition, message_id: str, message: OutgoingMessage
    ) -> Received:
        return Received(
            subscription=definition.subscription,
            message_id=message_id,
            data=message.data,
            attributes=dict(message.attributes),
            ordering_key=message.ordering_key,
            published_at=self._clock.now(),
            delivery_attempt=1,
        )


def parse_data(data: bytes) -> Any:
    """Return the JSON; None without data, the bytes if they are not JSON."""
    if not data:
        return None
    try:
        return from_json(data)
    except ValueError:
        return data
