"""Publishing to topics, confirmed."""

# Generated from _async/pubsub.py by scripts/unasync.py; edit that.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convotic_celery.context.publishing import (
    build_message,
    build_messages,
    confirm_sync,
)
from convotic_celery.context.publishing_many import publish_many_sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convotic_celery.context.publishing import TopicPublisher

__all__ = ["SyncPubsub"]


class SyncPubsub:
    """Publishes raw messages: JSON data and string attributes, to every subscription of a topic."""

    def __init__(
        self, publisher: TopicPublisher, *, timeout_seconds: float, trace: Mapping[str, str]
    ) -> None:
        self._publisher = publisher
        self._timeout_seconds = timeout_seconds
        self._trace = trace

    def publish(
        self,
        topic: str,
        message: Mapping[str, Any] | None = None,
        *,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
    ) -> str:
        """Publish and return the message id, once the server has confirmed it.

        ``data`` is anything with a JSON form: also pydantic models, dataclasses, dates, Decimals
        (as strings). ``message`` is the same as one mapping:
        ``publish(topic, {"data": ..., "attributes": {...}})``.

        Delivered at least once; a publish that is repeated after an error may arrive twice, with
        two ids. Raises PublishRefused before anything is sent, PublishNotConfirmed, or what the
        publisher reports (an unknown topic, a lost connection).
        """
        outgoing = build_message(
            topic,
            message,
            data=data,
            attributes=attributes,
            ordering_key=ordering_key,
            trace=self._trace,
        )
        future = self._publisher.publish(
            outgoing.topic, outgoing.data, outgoing.attributes, outgoing.ordering_key
        )
        return confirm_sync(future, topic, self._timeout_seconds)

    def publish_many(self, topic: str, messages: Iterable[Mapping[str, Any]]) -> list[str]:
        """Publish many messages and return their ids, in order, once all are confirmed.

        Each message is a mapping: ``{"data": ..., "attributes": {...}, "ordering_key": "..."}``.
        All are checked before the first is sent. The timeout is for each thousand of them.

        Raises PublishRefused that names the message, and PublishManyFailed that says which are
        published and which to publish again.
        """
        outgoing = build_messages(topic, messages, trace=self._trace)
        return publish_many_sync(self._publisher, topic, outgoing, self._timeout_seconds)
