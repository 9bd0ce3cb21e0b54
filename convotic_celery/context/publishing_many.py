"""Publishing many messages: all confirmed, or an error that says which are not."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from convotic_celery.context.confirmations import wait_for_all
from convotic_celery.errors import PublishManyFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from convotic_celery.context.publishing import TopicPublisher
    from convotic_pubsub.outgoing import Answer, OutgoingMessage

__all__ = ["publish_many_async", "publish_many_sync"]

#: Most unconfirmed messages of one call; bounds what the transport holds.
MAX_UNCONFIRMED = 1_000
#: Messages that are waited for together. While the server has some, the next are prepared.
_BATCH = 250
_BATCHES_UNDER_WAY = MAX_UNCONFIRMED // _BATCH

Futures: TypeAlias = "list[Answer]"


def publish_many_sync(
    publisher: TopicPublisher,
    topic: str,
    messages: Sequence[OutgoingMessage],
    timeout_seconds: float,
) -> list[str]:
    """Publish all and return their ids once each is confirmed; blocks.

    Raises:
        PublishManyFailed: Some are not; after the first failure nothing more is sent.
    """
    futures: Futures = []
    for awaited in _send_in_turn(publisher, messages, futures):
        _wait(awaited, timeout_seconds)
    return _conclude(topic, futures, len(messages), timeout_seconds)


async def publish_many_async(
    publisher: TopicPublisher,
    topic: str,
    messages: Sequence[OutgoingMessage],
    timeout_seconds: float,
) -> list[str]:
    """Do what ``publish_many_sync`` does, without blocking; a cancel takes no message back."""
    futures: Futures = []
    for awaited in _send_in_turn(publisher, messages, futures):
        await wait_for_all(awaited, timeout_seconds)
    return _conclude(topic, futures, len(messages), timeout_seconds)


def _send_in_turn(
    publisher: TopicPublisher, messages: Sequence[OutgoingMessage], futures: Futures
) -> Iterator[Futures]:
    """Send messages and add their futures; yield those that the caller has to wait for.

    After a failure nothing more is sent; the last yield has all that are under way.
    """
    under_way: deque[Futures] = deque()
    for batch in _batches(messages):
        is_first = not futures
        sent = [publisher.publish(message) for message in batch]
        futures += sent
        under_way.append(sent)
        if is_first or len(under_way) >= _BATCHES_UNDER_WAY:
            oldest = under_way.popleft()
            yield oldest
            if not _all_confirmed(oldest):
                break
    yield [future for sent in under_way for future in sent]


def _wait(futures: Iterable[Answer], seconds: float) -> None:
    """Wait until all are done, or so long."""
    limit = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        for future in futures:
            future.exception(max(0.0, limit - time.monotonic()))


def _batches(messages: Sequence[OutgoingMessage]) -> Iterator[Sequence[OutgoingMessage]]:
    # The first goes alone: if the topic has to be created, that is done once.
    if messages:
        yield messages[:1]
    for first in range(1, len(messages), _BATCH):
        yield messages[first : first + _BATCH]


def _all_confirmed(futures: Iterable[Answer]) -> bool:
    return all(future.done() and future.exception() is None for future in futures)


def _conclude(
    topic: str,
    futures: Sequence[Answer],
    total: int,
    timeout_seconds: float,
) -> list[str]:
    message_ids: list[str | None] = [None] * total
    failures: dict[int, str] = {}
    cause: BaseException | None = None
    for position, future in enumerate(futures):
        if not future.done():
            failures[position] = f"not confirmed within {timeout_seconds:g} seconds, may be stored"
        elif (error := future.exception()) is not None:
            cause = cause or error
            failures[position] = f"{type(error).__name__}: {error}"
        else:
            message_ids[position] = future.result()
    if failures:
        raise PublishManyFailed(topic, message_ids, failures) from cause
    return [message_id for message_id in message_ids if message_id is not None]
