"""Publishing to topics: now and confirmed, or later and kept in the store until then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convotic_celery.context.publishing import (
    build_message,
    build_messages,
    publish_async,
)
from convotic_celery.context.publishing_many import publish_many_async

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convotic_celery.context._async.schedule import AsyncSchedule
    from convotic_celery.context.publishing import TopicPublisher
    from convotic_celery.context.scheduled import Delay

__all__ = ["AsyncPubsub"]


class AsyncPubsub:
    """Publishes raw messages: JSON data and string attributes, to every subscription of a topic."""

    def __init__(
        self,
        publisher: TopicPublisher,
        schedule: AsyncSchedule,
        *,
        timeout_seconds: float,
        trace: Mapping[str, str],
    ) -> None:
        self._publisher = publisher
        self._schedule = schedule
        self._timeout_seconds = timeout_seconds
        self._trace = trace

    async def publish(
        self,
        topic: str,
        message: Mapping[str, Any] | None = None,
        *,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
        delay: Delay | None = None,
    ) -> str:
        """Publish and return the message id, once the server has confirmed it.

        ``data`` is anything with a JSON form: also pydantic models, dataclasses, dates, Decimals
        (as strings). ``message`` is the same as one mapping:
        ``publish(topic, {"data": ..., "attributes": {...}})``.

        Delivered at least once; a publish that is repeated after an error may arrive twice, with
        two ids. Raises PublishRefused before anything is sent, PublishNotConfirmed, or what the
        publisher reports (an unknown topic, a lost connection).

        With a ``delay`` (seconds or a timedelta, 0 to 365 days) the message is checked, kept in the
        store, and published by a running worker when it is due, at most a second late; what is
        returned is a schedule id, for :meth:`cancel`. Whether the topic exists is known only then.
        Raises StoreUnavailable while the store does not answer; the message may be stored even so.
        """
        outgoing = build_message(
            topic,
            message,
            data=data,
            attributes=attributes,
            ordering_key=ordering_key,
            trace=self._trace,
        )
        if delay is not None:
            (schedule_id,) = await self._schedule.add([outgoing], delay)
            return schedule_id
        return await publish_async(self._publisher, outgoing, self._timeout_seconds)

    async def cancel(self, schedule_id: str) -> bool:
        """Cancel a delayed message; True if it was still waiting, and so is never published.

        False: it was published already, or may have been; it is not tried again. Raises
        StoreUnavailable, and ValueError for anything but a schedule id.
        """
        return await self._schedule.cancel(schedule_id)

    async def publish_many(
        self,
        topic: str,
        messages: Iterable[Mapping[str, Any]],
        *,
        delay: Delay | None = None,
    ) -> list[str]:
        """Publish many messages and return their ids, in order, once all are confirmed.

        Each message is a mapping: ``{"data": ..., "attributes": {...}, "ordering_key": "..."}``.
        All are checked before the first is sent. The timeout applies to each thousand. With a
        ``delay`` all or none are stored (at most 10,000 of 50 MB); their schedule ids are returned.

        Raises a PublishRefused that names the message, or a PublishManyFailed that says which are
        published and which to publish again.
        """
        outgoing = build_messages(topic, messages, trace=self._trace)
        if delay is not None:
            return await self._schedule.add(outgoing, delay)
        return await publish_many_async(self._publisher, topic, outgoing, self._timeout_seconds)
