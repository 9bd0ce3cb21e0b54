"""Publishing through the transport: what ``ctx.pubsub`` and ``handler.delay`` send with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_celery.context.publishing import (
    TopicPublisher,
    build_message,
    publish_async,
    publish_sync,
)
from convotic_celery.errors import TopicHasNoSubscription
from convotic_celery.names import prefixed
from convotic_celery.runtime.delivery.attributes import TARGET_ATTRIBUTE
from convotic_pubsub.outgoing import FAIL_IF_MISSING, Answer, IfMissing, OutgoingMessage, Sending
from convotic_pubsub.registry import session_for

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_pubsub.session import Session

__all__ = ["BrokerParameters", "HandlerPublisher", "SessionPublisher"]

#: Returns the broker's URL and the transport options.
BrokerParameters: TypeAlias = Callable[[], tuple[str, Mapping[str, Any]]]


#: Takes a message to send; returns it with its trace context, and what hears of its confirmation.
PublishTracing: TypeAlias = Callable[
    [OutgoingMessage], tuple[OutgoingMessage, Callable[[Answer], object]]
]


class SessionPublisher:
    """The :class:`~convotic_celery.context.publishing.TopicPublisher` on the process's session.

    A missing topic is created only together with the subscriptions of the handlers that are known
    here: a message to a topic without a subscription would be lost. Thread-safe; connects on first
    use.

    Args:
        parameters: Where to publish; asked on first use, so that a worker and its handlers share a
            session.
        definitions: The handlers known here.
        may_create: False leaves a missing topic missing (``provision`` is ``verify`` or ``off``).
        prefix: Put before the names of topics, but those that are full paths
            (``projects/P/topics/T``).
        place: Where this process has looked for handlers, for the error about a missing topic.
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        definitions: Iterable[HandlerDefinition],
        *,
        may_create: bool = True,
        prefix: str = "",
        place: str = "",
    ) -> None:
        self._parameters = parameters
        self._prefix = prefix
        self._place = place
        #: Kept, since reading Celery's settings costs more than a publish.
        self._session: Session | None = None
        #: Called with each message; see ``telemetry/tracing.py``. None: no tracing.
        self.tracing: PublishTracing | None = None
        self._if_missing: dict[str, IfMissing] = {}
        for definition in definitions:
            known = self._if_missing.get(definition.topic, FAIL_IF_MISSING)
            if may_create:
                known = IfMissing(declare=(*known.declare, definition.queue))
            self._if_missing[definition.topic] = known

    def publish(self, message: OutgoingMessage, *, sending: Sending = "batched") -> Answer:
        """Send and return at once; the future has the message id once the server has confirmed it.

        The first call connects, which may take seconds while the embedded emulator starts.
        """
        topic = message.topic
        if_missing = self._if_missing.get(topic)
        if if_missing is None:
            if_missing = IfMissing(error=partial(self._explain_missing, topic))
        if self._prefix:
            message = replace(message, topic=prefixed(self._prefix, topic, "topic"))
        if self.tracing is None:
            return self._find_session().publish(message, sending=sending, if_missing=if_missing)
        message, confirmed = self.tracing(message)
        future = self._find_session().publish(message, sending=sending, if_missing=if_missing)
        future.add_done_callback(confirmed)
        return future

    def _explain_missing(self, topic: str) -> TopicHasNoSubscription:
        near = get_close_matches(topic, self._if_missing, n=1)
        return TopicHasNoSubscription(topic, near[0] if near else "", self._place)

    def _find_session(self) -> Session:
        """Return the process's session; a closed one is replaced."""
        session = self._session
        if session is None or session.closed:
            self._session = session = session_for(*self._parameters())
        return session

    def forget_session(self) -> None:
        """Read the parameters again at the next publish: they have changed."""
        self._session = None


class HandlerPublisher:
    """Publishes to one handler of a topic, as ``process_order.delay(order)`` does."""

    def __init__(self, publisher: TopicPublisher, timeout_seconds: float) -> None:
        self._publisher = publisher
        self._timeout_seconds = timeout_seconds

    def publish(
        self,
        definition: HandlerDefinition,
        data: Any,
        attributes: Mapping[str, str],
        ordering_key: str,
    ) -> str:
        """Publish a raw message that only this handler gets; return its id once it is confirmed.

        Raises:
            PublishRefused: It breaks a rule of Pub/Sub; nothing was sent.
        """
        targeted = self._build(definition, data, attributes, ordering_key)
        return publish_sync(self._publisher, targeted, self._timeout_seconds)

    async def apublish(
        self,
        definition: HandlerDefinition,
        data: Any,
        attributes: Mapping[str, str],
        ordering_key: str,
    ) -> str:
        """Do what :meth:`publish` does, without blocking the event loop."""
        targeted = self._build(definition, data, attributes, ordering_key)
        return await publish_async(self._publisher, targeted, self._timeout_seconds)

    @staticmethod
    def _build(
        definition: HandlerDefinition,
        data: Any,
        attributes: Mapping[str, str],
        ordering_key: str,
    ) -> OutgoingMessage:
        outgoing = build_message(
            definition.topic,
            None,
            data=data,
            attributes=attributes,
            ordering_key=ordering_key,
            trace={},
        )
        attributes = {**outgoing.attributes, TARGET_ATTRIBUTE: definition.queue}
        return replace(outgoing, attributes=attributes)
