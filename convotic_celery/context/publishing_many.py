"""Publishing many messages: all confirmed, or an error that says which are not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from convotic_celery.errors import PublishManyFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from convotic_celery.context.publishing import TopicPublisher
    from convotic_pubsub.outgoing import OutgoingMessage

__all__ = ["publish_many_async", "publish_many_sync"]

#: Unconfirmed messages of one call; it bounds what is in the transport at once.
MAX_UNCONFIRMED = 1_000


def publish_many_sync(
    publisher: TopicPublisher,
    topic: str,
    messages: Sequence[OutgoingMessage],
    timeout_seconds: float,
) -> list[str]:
    """Publish all and return their ids once each is confirmed; blocks.

    Raises:
        PublishManyFailed: Not all are; what comes after a failure is not sent.
    """
    futures: list[concurrent.futures.Future[str]] = []
    for batch in _batches(messages):
        sent = _send(publisher, batch)
        futures += sent
        concurrent.futures.wait(sent, timeout_seconds)
        if not _all_confirmed(sent):
            break
    return _conclude(topic, futures, len(messages), timeout_seconds)


async def publish_many_async(
    publisher: TopicPublisher,
    topic: str,
    messages: Sequence[OutgoingMessage],
    timeout_seconds: float,
) -> list[str]:
    """Do what ``publish_many_sync`` does, without blocking; a cancel takes no message back."""
    futures: list[concurrent.futures.Future[str]] = []
    for batch in _batches(messages):
        sent = _send(publisher, batch)
        futures += sent
        await asyncio.wait(_watch(sent), timeout=timeout_seconds)
        if not _all_confirmed(sent):
            break
    return _conclude(topic, futures, len(messages), timeout_seconds)


def _watch(
    futures: Iterable[concurrent.futures.Future[str]],
) -> list[asyncio.Future[None]]:
    """Return what is done when each future is, and neither cancels nor carries its error."""
    loop = asyncio.get_running_loop()
    watches = []
    for future in futures:
        watch: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(partial(_tell, loop, watch))
        watches.append(watch)
    return watches


def _tell(
    loop: asyncio.AbstractEventLoop, watch: asyncio.Future[None], _done: object = None
) -> None:
    # RuntimeError: the confirmation came when its loop was closed already.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_finish, watch)


def _finish(watch: asyncio.Future[None]) -> None:
    if not watch.done():
        watch.set_result(None)


def _batches(messages: Sequence[OutgoingMessage]) -> Iterator[Sequence[OutgoingMessage]]:
    # The first goes alone: if the topic has to be created, that is done once.
    if messages:
        yield messages[:1]
    for first in range(1, len(messages), MAX_UNCONFIRMED):
        yield messages[first : first + MAX_UNCONFIRMED]


def _send(
    publisher: TopicPublisher, batch: Iterable[OutgoingMessage]
) -> list[concurrent.futures.Future[str]]:
    return [publisher.publish(message) for message in batch]


def _all_confirmed(futures: Iterable[concurrent.futures.Future[str]]) -> bool:
    return all(future.done() and future.exception() is None for future in futures)


def _conclude(
    topic: str,
    futures: Sequence[concurrent.futures.Future[str]],
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
