"""Brings a queue's messages: StreamingPull, or unary Pull where flow control is ignored.

One puller serves one :class:`~convotic_pubsub.consume.subscription.Subscription`; its errors
end here, in back-off, and never reach kombu. Runs on the I/O thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import is_transient, pb, translate
from convotic_pubsub.consume.delivery import PullStream
from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError
from convotic_pubsub.limits import MAX_MESSAGES, lease_seconds
from convotic_pubsub.names import subscription_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.client.provisioning import Provisioner
    from convotic_pubsub.consume.outage import PullOutage
    from convotic_pubsub.consume.ports import Clock
    from convotic_pubsub.consume.subscription import Subscription

__all__ = ["Puller"]

#: What a stream's read returns at its end; the stubs don't know it.
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

#: The thread that a message wakes is often put on this one's processor, and needs the interpreter's
#: lock: it would have both only when this thread waits. Some systems have no such call.
_let_woken_run: Callable[[], object] = getattr(os, "sched_yield", bool)

#: The service closes a stream without client traffic after 60 s, and answers each heartbeat of a
#: client with this protocol version with an empty response at least. Google's clients write every
#: 30 s and wait for 15 s; far more often, a silent stream is reported in 10 s and replaced in 20 s.
_PROTOCOL_VERSION = 1
_HEARTBEAT_SECONDS, _ANSWER_SECONDS = 4.0, 15.0
#: All streams of a process send so many heartbeats a second at most, since each takes half a
#: millisecond of two processors; each stream sends one so often at least.
_HEARTBEATS_A_SECOND, _LONGEST_HEARTBEAT_SECONDS = 15, 25.0
#: So long after its heartbeat a stream that has not answered is called silent.
_SILENT_SECONDS = 4.0
#: A half-closed stream is cancelled after this: a cancelled stream of Google's emulator lives on
#: as a ghost that swallows messages, one that ends by itself does not.
_DRAIN_SECONDS = 2.0
#: One unary Pull waits this long on the server at most. Short, since it can't be half-closed.
_PULL_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 30.0
#: An unavailable server is asked more often than one that refuses: everybody waits for it.
_LAST_PAUSE_UNAVAILABLE_SECONDS = 3.0


class _SilentStream(BrokerUnavailable):
    """A stream is open, and the server does not answer on it."""


class Puller:
    """Keeps a subscription supplied until it is stopped."""

    def __init__(
        self,
        subscription: Subscription,
        broker: Broker,
        provisioner: Provisioner,
        *,
        clock: Clock,
        project: str,
        client_id: str,
        outage: PullOutage,
    ) -> None:
        self._subscription = subscription
        self._outage = outage
        self._broker = broker
        self._provisioner = provisioner
        self._clock = clock
        self._client_id = client_id
        self._spec = subscription.spec
        self._path = subscription_path(project, subscription.spec.subscription)
        self._drains: set[asyncio.Task[None]] = set()
        self._reported, self._waits_for_server = "", False
        #: Why nothing can be pulled now; "": it can.
        self.trouble = ""
        self._condition: Callable[[], bool] = bool
        self._waker: asyncio.Future[None] | None = None
        #: When the server was heard of last, by the clock; 0.0: never.
        self.heard_at = 0.0
        #: Since when an open stream has not answered; 0.0: it does, or none is open.
        self.silent_since = 0.0
        subscription.on_change = self._on_change

    async def run(self) -> None:
        """Pull until the subscription is stopping; then see the streams end."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._subscription.is_stopping:
            started = self._clock()
            try:
                await self._provisioner.ensure(self._spec)
                await self._pull_until_it_ends()
                self._recovered()
            except Exception as error:  # noqa: BLE001  no queue may stop for good without a word
                if self._clock() - started > _LAST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                await self._back_off(error, pause)
                pause = min(2 * pause, _longest_pause(error))
            else:
                pause = _FIRST_PAUSE_SECONDS
        self._outage.forget(self._spec.queue)
        if self._drains:
            await asyncio.wait(self._drains)

    async def _pull_until_it_ends(self) -> None:
        subscription = self._subscription
        if not subscription.may_pull():
            await self._until(lambda: subscription.is_stopping or subscription.may_pull())
        elif self._broker.is_streaming:
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

    def _is_stopping(self) -> bool:
        return self._subscription.is_stopping

    # -- errors -----------------------------------------------------------------------------------

    async def _back_off(self, error: Exception, pause: float) -> None:
        translated = translate(error, self._path)
        self.trouble = str(translated)
        if is_transient(error):
            self.silent_since = 0.0  # it is not there: that is not silence
        # The service ends every stream now and then; only what lasts is worth a line.
        if pause > _FIRST_PAUSE_SECONDS or not is_transient(error):
            is_known = isinstance(translated, BrokerUnavailable)  # no matter of credentials
            self._report(translated, is_outage=is_known and _is_outage(error))
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() is grpc.StatusCode.NOT_FOUND:
                self._provisioner.forget(self._spec.queue)
            elif error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._broker.look_again()
        jitter = random.uniform(0.8, 1.2)  # noqa: S311  no secret
        await self._until(self._is_stopping, within_seconds=pause * jitter)

    def _report(self, error: PubsubTransportError, *, is_outage: bool) -> None:
        """Log an error once, until it changes or is over; an outage once for all queues."""
        text = type(error).__name__
        if text == self._reported:
            return
        self._reported, self._waits_for_server = text, is_outage
        if is_outage:
            self._outage.begin(self._spec.queue, error)
            return
        self._outage.forget(self._spec.queue)
        logger.log(
            logging.WARNING if isinstance(error, BrokerUnavailable) else logging.ERROR,
            "Queue %s pulls nothing for now and tries again: %s",
            self._spec.queue,
            error,
            extra={"action": "pull_failed", "queue": self._spec.queue},
        )

    def _recovered(self) -> None:
        self.trouble = ""
        if self._waits_for_server:
            self._outage.end(self._spec.queue)
        elif self._reported:
            logger.info(
                "Queue %s pulls again",
                self._spec.queue,
                extra={"action": "pull_recovered", "queue": self._spec.queue},
            )
        self._reported, self._waits_for_server = "", False

    # -- unary ------------------------------------------------------------------------------------

    async def _pull(self) -> None:
        subscription = self._subscription
        await self._until(lambda: subscription.is_stopping or subscription.free() > 0)
        free = min(subscription.free(), MAX_MESSAGES)
        if not free:
            return
        stream = PullStream(limit=free)
        request = pb.PullRequest(subscription=self._path, max_messages=free)
        channel = self._broker.channels.take_pull_channel()
        call = asyncio.ensure_future(_response(channel.rpc.pull(request, timeout=_PULL_SECONDS)))
        call.add_done_callback(lambda _: channel.release())
        await self._until(self._is_stopping, call)
        if not call.done():
            await asyncio.wait({call}, timeout=_DRAIN_SECONDS)
            call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            messages = await call
            self._record_life()
            for message in messages:
                subscription.receive(message, stream)

    def _record_life(self) -> None:
        self.heard_at = self._clock()
        self.silent_since = 0.0
        if self.trouble:
            self._recovered()

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
        stream = PullStream(limit=max_messages)
        for message in await _response(self._broker.rpc.pull(request, timeout=_PULL_SECONDS)):
            self._subscription.receive(message, stream)

    # -- streaming --------------------------------------------------------------------------------

    async def _stream(self) -> None:
        """Serve one stream: until it fails, or the subscription needs another or none."""
        channel = self._broker.channels.take_pull_channel()
        stream = PullStream(limit=self._subscription.limit)
        call = channel.rpc.streaming_pull(self._path)
        reader = stream.reader = asyncio.ensure_future(self._read(call, stream))
        reader.add_done_callback(lambda _: channel.release())
        try:
            await call.write(self._first_request(stream))
            await self._watch(call, reader, stream)
        except _SilentStream:
            call.cancel()  # half-closed it would wait for the server to end it
            self._broker.channels.replace(channel.rpc)
            raise
        except asyncio.InvalidStateError:  # grpc.aio: the call is over; the reader knows why
            pass
        except BaseException:
            if not reader.done():
                self._drain(call, reader)
            raise
        if not reader.done():
            self._drain(call, reader)
            return
        if reader.cancelled():  # with its channel, when the emulator was found elsewhere
            raise BrokerUnavailable(f"{self._path}: the connection was closed")
        reader.result()
        await asyncio.sleep(_FIRST_PAUSE_SECONDS)  # the server ended it: never in a busy loop

    def _first_request(self, stream: PullStream) -> Any:
        return pb.StreamingPullRequest(
            subscription=self._path,
            stream_ack_deadline_seconds=lease_seconds(self._spec.ack_deadline_seconds),
            client_id=self._client_id,
            max_outstanding_messages=stream.limit,
            max_outstanding_bytes=self._spec.buffer_bytes,
            protocol_version=_PROTOCOL_VERSION,
        )

    async def _watch(self, call: Any, reader: asyncio.Future[None], stream: PullStream) -> None:
        """Return when the stream has ended or should end."""

        def should_end() -> bool:
            return not self._subscription.may_pull() or self._subscription.is_outgrown(stream)

        while not reader.done():
            await self._until(should_end, reader, within_seconds=self._heartbeat_seconds())
            if reader.done() or should_end():
                return
            stream.asked_at = self._clock()
            await call.write(pb.StreamingPullRequest())
            if self._broker.answers_heartbeats:
                await self._wait_for_answer(reader, stream, should_end)

    def _heartbeat_seconds(self) -> float:
        """Return how long this stream is left alone now."""
        share = self._broker.channels.streams / _HEARTBEATS_A_SECOND
        return min(max(_HEARTBEAT_SECONDS, share), _LONGEST_HEARTBEAT_SECONDS)

    async def _wait_for_answer(
        self, reader: asyncio.Future[None], stream: PullStream, should_end: Callable[[], bool]
    ) -> None:
        """Return when the stream has answered its heartbeat, has ended or should end.

        Raises:
            _SilentStream: it did not answer in time.
        """

        def is_over() -> bool:
            return reader.done() or should_end() or not stream.asked_at

        await self._until(is_over, reader, within_seconds=_SILENT_SECONDS)
        if is_over():
            return
        self.silent_since = self.silent_since or stream.asked_at
        rest = _ANSWER_SECONDS - _SILENT_SECONDS
        await self._until(is_over, reader, within_seconds=rest)
        if not is_over():
            raise _SilentStream(
                f"{self._path}: an open stream was silent for {_ANSWER_SECONDS:.0f} s"
            )

    async def _read(self, call: Any, stream: PullStream) -> None:
        """Hand on what the stream brings, until its end."""
        while (response := await call.read()) is not _EOF:
            self._record_life()
            messages = response.received_messages
            for message in messages:
                self._subscription.receive(message, stream)
            if len(messages) == 1:  # of many, the first ones run while the others are handed on
                _let_woken_run()
            if stream.asked_at:
                self._record_answer(stream, is_empty=not messages)

    def _record_answer(self, stream: PullStream, *, is_empty: bool) -> None:
        """Take what came after a heartbeat as its answer; an empty one can be nothing else."""
        if is_empty and self._clock() - stream.asked_at < _ANSWER_SECONDS:
            self._broker.answers_heartbeats = True
        stream.asked_at = 0.0
        self._on_change()

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
    return _LAST_PAUSE_UNAVAILABLE_SECONDS if _is_outage(error) else _LAST_PAUSE_SECONDS


def _is_outage(error: Exception) -> bool:
    """Say whether the server is gone, so that all queues wait for it."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE


async def _response(call: Any) -> Any:
    """Await a Pull; the client's own deadline means that nothing came."""
    try:
        return (await call).received_messages
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ()
        raise
