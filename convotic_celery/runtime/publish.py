"""Publishing through the transport: what ``ctx.pubsub`` and ``handler.delay`` send with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_celery.context.publishing import (
    OutgoingMessage,
    TopicPublisher,
    build_message,
    publish_async,
    publish_sync,
)
from convotic_celery.errors import TopicHasNoSubscription
from convotic_celery.names import prefixed
from convotic_celery.runtime.delivery.attributes import TARGET_ATTRIBUTE
from convotic_pubsub.errors import TopicNotFound
from convotic_pubsub.registry import session_for

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_pubsub.publish.publisher import Sending
    from convotic_pubsub.session import Session

__all__ = ["BrokerParameters", "HandlerPublisher", "SessionPublisher"]

logger = logging.getLogger(__name__)

#: Returns the broker's URL and the transport options.
BrokerParameters: TypeAlias = Callable[[], tuple[str, Mapping[str, Any]]]


class SessionPublisher:
    """The :class:`~convotic_celery.context.publishing.TopicPublisher` on the process's session.

    A topic that does not exist is created only together with the subscriptions of the handlers that
    are known here: a message to a topic that nobody subscribes to would vanish. Thread-safe;
    connects on first use.

    Args:
        parameters: Where to publish; asked on first use, so that a worker and its handlers share a
        session. definitions: The handlers known here. may_create: False leaves a missing topic
        missing (``provision`` is ``verify`` or ``off``). prefix: Put before the names of topics,
        but those that are full paths (``projects/P/topics/T``).
    """

    def __init__(
        self,
        parameters: BrokerParameters,
        definitions: Iterable[HandlerDefinition],
        *,
        may_create: bool = True,
        prefix: str = "",
    ) -> None:
        self._parameters = parameters
        self._may_create = may_create
        self._prefix = prefix
        #: Kept, since reading Celery's settings costs more than a publish.
        self._session: Session | None = None
        self._queues: dict[str, list[str]] = {}
        for definition in definitions:
            self._queues.setdefault(definition.topic, []).append(definition.queue)

    def publish(
        self,
        topic: str,
        data: bytes,
        attributes: Mapping[str, str],
        ordering_key: str,
        *,
        sending: Sending = "batched",
    ) -> Future[str]:
        """Send and return at once; the future has the message id once the server has confirmed it.

        The first call connects, which may take seconds while the embedded emulator starts.
        """
        session = self._find_session()
        address = prefixed(self._prefix, topic, "topic")
        inner = session.publish(address, data, attributes, ordering_key, sending=sending)
        if inner.done() and not isinstance(inner.exception(), TopicNotFound):
            return inner
        outer: Future[str] = Future()
        outer.set_running_or_notify_cancel()  # what was handed to the transport can't be taken back

        def create_and_send(error: TopicNotFound) -> None:
            try:
                self._create(session, topic, error)
                again = session.publish(address, data, attributes, ordering_key)
                again.add_done_callback(lambda done: _pass_on(done, outer, outer.set_exception))
            except BaseException as exc:  # noqa: BLE001 - a thread's top: told to the caller
                outer.set_exception(exc)

        def on_missing(error: TopicNotFound) -> None:
            # This is a thread of the transport's or gRPC's, and creating blocks.
            threading.Thread(target=create_and_send, args=(error,), daemon=True).start()

        inner.add_done_callback(lambda done: _pass_on(done, outer, on_missing))
        return outer

    def _find_session(self) -> Session:
        """Return the process's session; a closed one is replaced."""
        session = self._session
        if session is None or session.closed:
            self._session = session = session_for(*self._parameters())
        return session

    def forget_session(self) -> None:
        """Ask for the parameters anew at the next publish: they have changed."""
        self._session = None

    def _create(self, session: Session, topic: str, error: TopicNotFound) -> None:
        """Create the subscriptions of the topic's known handlers, and with them the topic."""
        queues = self._queues.get(topic)
        if not queues:
            raise TopicHasNoSubscription(topic) from error
        if not self._may_create:
            raise error
        for queue in queues:
            session.resources.ensure(session.spec(queue))


def _pass_on(
    inner: Future[str], outer: Future[str], on_missing: Callable[[TopicNotFound], None]
) -> None:
    error = inner.exception()
    if isinstance(error, TopicNotFound):
        on_missing(error)
    elif error is not None:
        outer.set_exception(error)
    else:
        outer.set_result(inner.result())


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
