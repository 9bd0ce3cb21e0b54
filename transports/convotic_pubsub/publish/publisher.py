"""Publishing: confirmed, many messages a request, in order where a key asks for it.

:meth:`Publisher.publish` may be called from any thread but the I/O thread, where the rest runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import is_transient, pb, translate
from convotic_pubsub.errors import MessageTooLarge, PublishError
from convotic_pubsub.limits import MAX_MESSAGE_BYTES, message_bytes
from convotic_pubsub.names import topic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_pubsub.session import Session

__all__ = ["Publisher", "Sending"]

logger = logging.getLogger(__name__)

#: https://cloud.google.com/pubsub/quotas#resource_limits: 1,000 messages or 10 MB a request.
_MAX_BATCH_MESSAGES = 1000
_MAX_BATCH_BYTES = 9_000_000
#: Requests of one topic under way at a time; the next batch gathers meanwhile.
_PARALLEL_REQUESTS = 3
_REQUEST_SECONDS = 20.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 5.0

Future = concurrent.futures.Future[str]

#: Who sends a message. ``batched``: the I/O thread, together with what else there is. ``directly``:
#: the thread that publishes, which is faster for one message; it does not wait. ``blocking``: the
#: same, and it waits for the confirmation.
Sending: TypeAlias = Literal["batched", "directly", "blocking"]


@dataclass(slots=True, eq=False)
class _Outgoing:
    message: Any
    size: int
    future: Future
    give_up_at: float


@dataclass(slots=True, eq=False)
class _Lane:
    """The outgoing messages of one topic, or of one ordering key of it."""

    path: str
    parallel: int
    queue: deque[_Outgoing] = field(default_factory=deque)
    under_way: int = 0


class Publisher:
    """Publishes messages of one session and resolves their futures."""

    def __init__(self, session: Session, post: Callable[..., bool]) -> None:
        self._session = session
        self._post = post
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Held while a message is on its way that its publisher's thread has sent by itself.
        self._directly = threading.Lock()
        self._sent_directly: Future | None = None

    def publish(
        self,
        topic: str,
        data: bytes,
        attributes: Mapping[str, str],
        ordering_key: str = "",
        *,
        sending: Sending = "batched",
    ) -> Future:
        """Send a message; the future holds its id once the server has confirmed it.

        Thread-safe; does not block, unless ``sending`` is ``blocking``.

        The future raises :class:`PublishError` (or a subclass) when the server refused or did not
        confirm within ``publish_timeout_seconds``; in the latter case the message may still have
        been stored.

        Raises:
            MessageTooLarge: over 10,000,000 bytes; nothing was sent.
        """
        size = message_bytes(data, attributes, ordering_key)
        if size > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"message of {size:,} bytes for topic {topic}: Pub/Sub takes {MAX_MESSAGE_BYTES:,}"
            )
        path = topic_path(self._session.options.project, topic)
        message = pb.PubsubMessage(data=data, attributes=attributes, ordering_key=ordering_key)
        give_up_at = self._session.clock() + self._session.options.publish_timeout_seconds
        outgoing = _Outgoing(message, size, concurrent.futures.Future(), give_up_at)
        if (
            sending == "batched"
            or ordering_key
            or not self._send_directly(path, outgoing, waits=sending == "blocking")
        ):
            self._hand_over(path, ordering_key, outgoing)
        return outgoing.future

    def _hand_over(self, path: str, ordering_key: str, outgoing: _Outgoing) -> None:
        """Have the I/O thread send a message."""
        if not self._post(self._enqueue, path, ordering_key, outgoing):
            _fail([outgoing], PublishError(f"{path}: the session is closed"))

    def _send_directly(self, path: str, outgoing: _Outgoing, *, waits: bool) -> bool:
        """Send one message from this thread; False where it should go with others, or again.

        One at a time: many that publish at once share requests.
        """
        if not self._directly.acquire(blocking=False):
            return False
        self._sent_directly = outgoing.future
        timeout = min(_REQUEST_SECONDS, outgoing.give_up_at - self._session.clock())
        request = pb.PublishRequest(topic=path, messages=[outgoing.message])
        channels = self._session.broker.channels
        if waits:
            try:
                return _settle(path, outgoing, lambda: channels.publish_blocking(request, timeout))
            finally:
                self._directly.release()
        try:
            answer = channels.begin_publish(request, timeout)
        except ValueError:  # the channel is closed
            self._directly.release()
            return False
        answer.add_done_callback(partial(self._on_answer, path, outgoing))
        return True

    def _on_answer(self, path: str, outgoing: _Outgoing, answer: Any) -> None:
        """Take the answer to what was sent directly and without waiting (gRPC's thread)."""
        self._directly.release()
        if not _settle(path, outgoing, answer.result):
            self._hand_over(path, "", outgoing)

    def _enqueue(self, path: str, ordering_key: str, outgoing: _Outgoing) -> None:
        lane = self._lanes.get((path, ordering_key))
        if lane is None:
            parallel = 1 if ordering_key else _PARALLEL_REQUESTS
            lane = self._lanes[path, ordering_key] = _Lane(path, parallel)
        lane.queue.append(outgoing)
        if lane.under_way < lane.parallel:
            lane.under_way += 1
            task = asyncio.get_running_loop().create_task(self._send_lane(lane, ordering_key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_lane(self, lane: _Lane, ordering_key: str) -> None:
        try:
            while lane.queue:
                await self._send(lane.path, _take_batch(lane.queue))
        finally:
            lane.under_way -= 1
            if ordering_key and not lane.queue and not lane.under_way:
                self._lanes.pop((lane.path, ordering_key), None)

    async def _send(self, path: str, batch: list[_Outgoing]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        request = pb.PublishRequest(topic=path, messages=[each.message for each in batch])
        while True:
            try:
                response = await self._session.broker.rpc.publish(request, timeout=_REQUEST_SECONDS)
            except grpc.aio.AioRpcError as error:
                if is_transient(error) and self._session.clock() + pause < batch[0].give_up_at:
                    await self._session.broker.look_again()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_PAUSE_SECONDS)
                    continue
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT and len(batch) > 1:
                    for each in batch:  # one bad message must not fail the others
                        await self._send(path, [each])
                    return
                _fail(batch, _publish_error(error, path))
                return
            except BaseException:
                _fail(batch, PublishError(f"{path}: the session was closed before a confirmation"))
                raise
            for each, message_id in zip(batch, response.message_ids, strict=True):
                if not each.future.done():  # its owner may have cancelled it
                    each.future.set_result(message_id)
            return

    async def flush(self) -> None:
        """Return when everything published so far has been answered."""
        direct = self._sent_directly
        if direct is not None and not direct.done():
            await asyncio.wait({asyncio.wrap_future(direct)})
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def _settle(path: str, outgoing: _Outgoing, respond: Callable[[], Any]) -> bool:
    """Resolve a message's future by the server's answer; False if it has to be sent again."""
    try:
        response = respond()
    except (ValueError, grpc.FutureCancelledError):
        return False  # the channel was closed: the server is elsewhere now, or nowhere
    except grpc.RpcError as error:
        if is_transient(error):
            return False
        _fail([outgoing], _publish_error(error, path))
    else:
        if not outgoing.future.done():  # its owner may have cancelled it
            outgoing.future.set_result(response.message_ids[0])
    return True


def _take_batch(queue: deque[_Outgoing]) -> list[_Outgoing]:
    batch = [queue.popleft()]
    size = batch[0].size
    while queue and len(batch) < _MAX_BATCH_MESSAGES and size + queue[0].size <= _MAX_BATCH_BYTES:
        batch.append(queue.popleft())
        size += batch[-1].size
    return batch


def _publish_error(error: grpc.RpcError, path: str) -> Exception:
    translated = translate(error, path)
    if isinstance(translated, PublishError):
        return translated
    return PublishError(f"not confirmed: {translated}")


def _fail(batch: list[_Outgoing], error: Exception) -> None:
    for each in batch:
        if not each.future.done():
            each.future.set_exception(error)
