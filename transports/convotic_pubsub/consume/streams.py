"""Brings a queue's messages: StreamingPull, or unary Pull where flow control is ignored.

One puller serves one :class:`~convotic_pubsub.consume.subscription.QueueConsumer`; its errors
end here, in back-off, and never reach kombu. Runs on the I/O thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import is_transient, pb, translate
from convotic_pubsub.consume.delivery import Source
from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError
from convotic_pubsub.limits import lease_seconds
from convotic_pubsub.names import subscription_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_pubsub.consume.subscription import QueueConsumer
    from convotic_pubsub.session import Session

__all__ = ["Puller"]

#: What a stream's read returns at its end; the stubs don't know it.
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

#: The service closes a stream without client traffic after 60 s; Google's clients write every 30 s.
_HEARTBEAT_SECONDS = 30.0
#: A half-closed stream is cancelled after this: a cancelled stream of Google's emulator lives on
#: as a ghost that swallows messages, one that ends by itself does not.
_DRAIN_SECONDS = 2.0
#: One unary Pull waits this long on the server at most. Short, since it can't be half-closed.
_PULL_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 30.0
#: A server that is away is asked more often than one that refuses: all wait for it.
_LAST_PAUSE_AWAY_SECONDS = 5.0
#: Pub/Sub's limit on messages of one Pull.
_MAX_PULL = 1000


class Puller:
    """Keeps a consumer supplied until it is stopped."""

    def __init__(self, session: Session, consumer: QueueConsumer) -> None:
        self._session = session
        self._consumer = consumer
        self._spec = consumer.spec
        self._path = subscription_path(session.options.project, consumer.spec.subscription)
        self._drains: set[asyncio.Task[None]] = set()
        self._reported = ""
        self._condition: Callable[[], bool] = bool
        self._waker: asyncio.Future[None] | None = None
        consumer.on_change = self._on_change

    async def run(self) -> None:
        """Pull until the consumer is stopping; then see the streams end."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._consumer.stopping:
            started = self._session.clock()
            try:
                await self._session.provisioner.ensure(self._spec)
                await self._pull_until_it_ends()
                self._recovered()
            except Exception as error:  # noqa: BLE001  no queue may stop for good, and in silence
                if self._session.clock() - started > _LAST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                await self._back_off(error, pause)
                pause = min(2 * pause, _longest_pause(error))
            else:
                pause = _FIRST_PAUSE_SECONDS
        if self._drains:
            await asyncio.wait(self._drains)

    async def _pull_until_it_ends(self) -> None:
        if not self._consumer.may_pull():
            await self._until(lambda: self._consumer.stopping or self._consumer.may_pull())
        elif self._session.broker.is_streaming:
            await self._stream()
        else:
            await self._pull()

    def _on_change(self) -> None:
        waker = self._waker
        if waker is not None and not waker.done() and self._condition():
            waker.set_result(None)

    async def _until(
        self,
        condition: Callable[[], bool],
        *others: asyncio.Future[Any],
        within_seconds: float | None = None,
    ) -> None:
        """Return when ``condition`` holds after a change, one of ``others`` is done, or in time."""
        if condition():
            return
        self._condition = condition
        self._waker = asyncio.get_running_loop().create_future()
        futures: list[asyncio.Future[Any]] = [self._waker, *others]
        await asyncio.wait(futures, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
        self._waker = None

    def _stopping(self) -> bool:
        return self._consumer.stopping

    # -- errors -----------------------------------------------------------------------------------

    async def _back_off(self, error: Exception, pause: float) -> None:
        translated = translate(error, self._path)
        # The service ends every stream now and then; only what lasts is worth a line.
        if pause > _FIRST_PAUSE_SECONDS or not is_transient(error):
            self._report(translated)
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() is grpc.StatusCode.NOT_FOUND:
                self._session.provisioner.forget(self._spec.queue)
            elif error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._session.broker.look_again()
        jitter = random.uniform(0.8, 1.2)  # noqa: S311  no secret
        await self._until(self._stopping, within_seconds=pause * jitter)

    def _report(self, error: PubsubTransportError) -> None:
        """Log an error once, until it changes or is over."""
        text = type(error).__name__
        if text == self._reported:
            return
        self._reported = text
        logger.log(
            logging.WARNING if isinstance(error, BrokerUnavailable) else logging.ERROR,
            "Queue %s pulls nothing for now and tries again: %s",
            self._spec.queue,
            error,
            extra={"action": "pull_failed", "queue": self._spec.queue},
        )

    def _recovered(self) -> None:
        if self._reported:
            self._reported = ""
            logger.info(
                "Queue %s pulls again",
                self._spec.queue,
                extra={"action": "pull_recovered", "queue": self._spec.queue},
            )

    # -- unary ------------------------------------------------------------------------------------

    async def _pull(self) -> None:
        await self._until(lambda: self._consumer.stopping or self._consumer.free() > 0)
        free = self._consumer.free()
        if not free:
            return
        source = Source(limit=free)
        request = pb.PullRequest(subscription=self._path, max_messages=min(free, _MAX_PULL))
        channel = self._session.broker.channels.take_pull_channel()
        call = asyncio.ensure_future(_response(channel.rpc.pull(request, timeout=_PULL_SECONDS)))
        call.add_done_callback(lambda _: channel.release())
        await self._until(self._stopping, call)
        if not call.done():
            await asyncio.wait({call}, timeout=_DRAIN_SECONDS)
            call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            for message in await call:
                self._consumer.receive(message, source)

    async def pull_now(self, max_messages: int) -> None:
        """Pull once what is available, without waiting for more.

        Raises:
            grpc.aio.AioRpcError: as the server answered.
        """
        # Deprecated for pullers, since the service may answer empty too early; ``basic.get`` asks
        # just for that.
        request = pb.PullRequest(
            subscription=self._path, max_messages=max_messages, return_immediately=True
        )
        source = Source(limit=max_messages)
        for message in await _response(
            self._session.broker.rpc.pull(request, timeout=_PULL_SECONDS)
        ):
            self._consumer.receive(message, source)

    # -- streaming --------------------------------------------------------------------------------

    async def _stream(self) -> None:
        """Serve one stream: until it fails, or the consumer needs another or none."""
        channel = self._session.broker.channels.take_pull_channel()
        source = Source(limit=self._consumer.limit)
        call = channel.rpc.streaming_pull(self._path)
        reader = source.reader = asyncio.ensure_future(self._read(call, source))
        reader.add_done_callback(lambda _: channel.release())
        try:
            await call.write(self._first_request(source))
            await self._watch(call, reader, source)
        except asyncio.InvalidStateError:  # grpc.aio: the call is over; the reader knows why
            pass
        except BaseException:
            if not reader.done():
                self._drain(call, reader)
            raise
        if not reader.done():
            self._drain(call, reader)
            return
        if reader.cancelled():  # with its channel, by somebody who found the emulator elsewhere
            raise BrokerUnavailable(f"{self._path}: the connection was closed")
        reader.result()
        await asyncio.sleep(_FIRST_PAUSE_SECONDS)  # the server ended it: never in a busy loop

    def _first_request(self, source: Source) -> Any:
        return pb.StreamingPullRequest(
            subscription=self._path,
            stream_ack_deadline_seconds=lease_seconds(self._spec.ack_deadline_seconds),
            client_id=self._session.client_id,
            max_outstanding_messages=source.limit,
            max_outstanding_bytes=self._spec.buffer_bytes,
        )

    async def _watch(self, call: Any, reader: asyncio.Future[None], source: Source) -> None:
        """Return when the stream has ended or should end."""

        def should_end() -> bool:
            consumer = self._consumer
            return (
                not consumer.may_pull()
                or consumer.starves(source)
                or source.limit != consumer.limit
            )

        while not reader.done():
            await self._until(should_end, reader, within_seconds=_HEARTBEAT_SECONDS)
            if reader.done() or should_end():
                return
            await call.write(pb.StreamingPullRequest())

    async def _read(self, call: Any, source: Source) -> None:
        """Hand on what the stream brings, until its end."""
        while (response := await call.read()) is not _EOF:
            if self._reported:
                self._recovered()
            for message in response.received_messages:
                self._consumer.receive(message, source)

    def _drain(self, call: Any, reader: asyncio.Future[None]) -> None:
        """Half-close a stream and see it end, without waiting for it here."""
        task = asyncio.get_running_loop().create_task(_end_stream(call, reader))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)


async def _end_stream(call: Any, reader: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        await call.done_writing()
    await asyncio.wait({reader}, timeout=_DRAIN_SECONDS)
    if not reader.done():
        call.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await reader


def _longest_pause(error: Exception) -> float:
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE:
        return _LAST_PAUSE_AWAY_SECONDS
    return _LAST_PAUSE_SECONDS


async def _response(call: Any) -> Any:
    """Await a Pull; the client's own deadline means that nothing came."""
    try:
        return (await call).received_messages
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ()
        raise
