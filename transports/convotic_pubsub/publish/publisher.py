"""Publishing: confirmed, many messages a request, in order where a key asks for it.

:meth:`Publisher.publish` may be called from any thread but the I/O thread, where the rest runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import is_transient, pb, translate
from convotic_pubsub.errors import (
    BrokerUnavailable,
    MessageTooLarge,
    PublishError,
    PubsubTransportError,
)
from convotic_pubsub.figures import Latencies
from convotic_pubsub.limits import MAX_MESSAGE_BYTES
from convotic_pubsub.names import topic_path
from convotic_pubsub.outgoing import FAIL_IF_MISSING, IfMissing, OutgoingMessage, Sending
from convotic_pubsub.publish.confirmation import Confirmation
from convotic_pubsub.publish.waiting import (
    Lane,
    Waiting,
    confirm,
    fail,
    is_missing,
    publish_error,
    session_closed,
    take_batch,
)
from convotic_pubsub.threads import WorkerThreads

if TYPE_CHECKING:
    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.options import TransportOptions

__all__ = ["ONE_ATTEMPT_SECONDS", "Publisher"]

logger = logging.getLogger(__name__)

#: Requests of one topic that start as soon as there is a message for them.
_EAGER_REQUESTS = 3
#: Requests of one topic under way at a time. Beyond the eager ones each first gathers for a while:
#: a server that is far away is kept supplied, and each request carries what many callers sent.
_MAX_REQUESTS, _GATHER_SECONDS = 16, 0.001
_REQUEST_SECONDS = 20.0
#: How long a publish that is not retried may take.
ONE_ATTEMPT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 5.0
#: While the session ends, nothing is sent again after this.
_LAST_RETRY_SECONDS = 1.0
#: A publish that is tried again after longer pauses than this is worth a line: 1.5 s have passed.
_QUIET_PAUSE_SECONDS, _REPORT_EVERY_SECONDS = 0.8, 60.0


class Publisher:
    """Publishes messages of one session and resolves their futures.

    Args:
        options: where topics are, unless a message names a full path, and how long to retry.
        broker: the server.
        clock: monotonic seconds.
        post: runs a function on the I/O thread; returns False once there is none.
        declare: creates queues that are missing, and with them their topics; looks at those that
            this process has seen before only if asked to (I/O thread).
    """

    def __init__(
        self,
        options: TransportOptions,
        broker: Broker,
        *,
        clock: Callable[[], float],
        post: Callable[..., bool],
        declare: Callable[[Iterable[str], bool], Awaitable[None]],
    ) -> None:
        self._project = options.project
        self._timeout_seconds = options.publish_timeout_seconds
        self._broker = broker
        self._clock = clock
        self._post = post
        self._declare = declare
        #: Topics of which this process has seen that the queues exist to which they lead.
        self._complete: set[str] = set()
        #: On their way to the I/O thread, which is told once of all that came until it looks.
        self._handed: deque[Waiting] = deque()
        self._is_told = False
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: From a publish to its confirmation, and how many were not confirmed.
        self.latencies = Latencies()
        self.failures = 0
        #: Held while a message is on its way past the I/O thread.
        self._directly = threading.Lock()
        #: A thread that waits for the answer to an awaited publish. gRPC's blocking channel has the
        #: same in its futures, but begins a thread for each call: a third of a publish's time.
        self._sender = WorkerThreads(self._send_alone, limit=1, name="convotic-pubsub-publish")
        self._sent_directly: Confirmation | None = None
        self._reported_at = -math.inf
        self._no_retry_after = math.inf
        self._is_ending = asyncio.Event()

    def publish(
        self,
        message: OutgoingMessage,
        *,
        sending: Sending = "batched",
        if_missing: IfMissing = FAIL_IF_MISSING,
        retry: bool = True,
    ) -> Confirmation:
        """Send a message; the future holds its id once the server has confirmed it.

        Thread-safe; does not block, unless ``sending`` is ``blocking``. Without ``retry`` there is
        one attempt of :data:`ONE_ATTEMPT_SECONDS` at most.

        The future raises :class:`PublishError` (or a subclass) when the server refused or did not
        confirm in time; in the latter case the message may still have been stored. A topic that is
        missing is dealt with as ``if_missing`` says.

        Raises:
            MessageTooLarge: over 10,000,000 bytes; nothing was sent.
        """
        size = message.size
        if size > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"message of {size:,} bytes for topic {message.topic}: "
                f"Pub/Sub takes {MAX_MESSAGE_BYTES:,}"
            )
        path = topic_path(self._project, message.topic)
        raw = pb.PubsubMessage(data=message.data)
        if message.attributes:  # an empty mapping costs as much as the rest
            raw.attributes.update(message.attributes)
        if message.ordering_key:
            raw.ordering_key = message.ordering_key
        began = self._clock()
        retry_until = began + self._timeout_seconds if retry else 0.0
        future = Confirmation()
        waiting = Waiting(path, raw, size, if_missing, began, retry_until, future)
        if (
            sending == "batched"
            or message.ordering_key
            or (if_missing.declare and path not in self._complete)
            or not self._send_directly(waiting, waits=sending == "blocking")
        ):
            self._send_soon(waiting)
        return future

    # -- answers, on the thread that brings them: now and then two at once count as one -----------

    def _confirm(self, batch: Collection[Waiting], message_ids: Iterable[str]) -> None:
        """Count messages as confirmed, and then resolve their futures."""
        now = self._clock()
        for each in batch:
            self.latencies.add(now - each.began)
        for each, message_id in zip(batch, message_ids, strict=True):
            confirm(each, message_id)

    def _fail(self, batch: Collection[Waiting], error: Exception, *, missing: bool = False) -> None:
        """Count messages as failed, and then resolve their futures; as :func:`fail`."""
        self.failures += sum(not each.future.done() for each in batch)
        fail(batch, error, missing=missing)

    async def finish(self) -> None:
        """As :meth:`flush`, for a session that ends: what is refused is not retried for long."""
        self._no_retry_after = self._clock() + _LAST_RETRY_SECONDS
        self._is_ending.set()
        await self.flush()
        self._sender.stop()

    async def flush(self) -> None:
        """Return when everything published so far has been answered."""
        direct = self._sent_directly
        if direct is not None and not direct.done():
            with contextlib.suppress(Exception):  # its caller's
                await direct
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # -- the caller's thread ----------------------------------------------------------------------

    def _send_soon(self, waiting: Waiting) -> None:
        """Have the I/O thread send a message."""
        self._handed.append(waiting)
        if self._is_told and not self._is_ending.is_set():
            return
        self._is_told = True
        if not self._post(self._enqueue_handed):
            for each in self._take_handed():
                self._fail([each], PublishError(f"{each.path}: the session is closed"))

    def _take_handed(self) -> Iterator[Waiting]:
        with contextlib.suppress(IndexError):  # another thread takes them, too
            while self._handed:
                yield self._handed.popleft()

    def _send_directly(self, waiting: Waiting, *, waits: bool) -> bool:
        """Send one message past the I/O thread; False where that has to.

        One at a time: many that publish at once share requests.
        """
        lane = self._lanes.get((waiting.path, ""))
        if self._handed or (lane is not None and lane.queue):
            return False
        if not self._directly.acquire(blocking=False):
            return False
        self._sent_directly = waiting.future
        if waits:
            return self._send_here(waiting)
        try:
            self._sender.submit(waiting)
        except RuntimeError:  # the session ends, or the system's limit of threads
            self._directly.release()
            return False
        return True

    def _send_alone(self, waiting: Waiting) -> None:
        """Send one message from the sender's thread."""
        if not self._send_here(waiting):
            self._send_soon(waiting)

    def _send_here(self, waiting: Waiting) -> bool:
        """Send one message from this thread and resolve its future by the server's answer.

        Returns False if the I/O thread has to go on.
        """
        try:
            message_id = self._request_here(waiting).message_ids[0]
        except ValueError:
            return False  # the channel was closed: the server is elsewhere now, or nowhere
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._post(self._broker.channels.replace_direct)
            if is_transient(error):
                if waiting.retry_until:
                    return False
                self._post(self._reconnect_soon)
            elif is_missing(error) and waiting.if_missing.declare:
                return False
            problem = publish_error(error, waiting.path)
            self._fail([waiting], problem, missing=is_missing(error))
        except Exception as error:  # noqa: BLE001  whatever it is, somebody waits for the future
            self._fail([waiting], error)
        else:
            self._confirm([waiting], [message_id])
        return True

    def _request_here(self, waiting: Waiting) -> Any:
        """Ask the server and wait; the way past the I/O thread is free before the future is."""
        try:
            return self._broker.channels.publish_blocking(
                pb.PublishRequest(topic=waiting.path, messages=[waiting.message]),
                _REQUEST_SECONDS if waiting.retry_until else ONE_ATTEMPT_SECONDS,
            )
        finally:
            self._directly.release()

    # -- the I/O thread ---------------------------------------------------------------------------

    def _reconnect_soon(self) -> None:
        self._spawn(self._broker.look_again())

    def _enqueue_handed(self) -> None:
        self._is_told = False
        for waiting in self._take_handed():
            self._enqueue(waiting)

    def _enqueue(self, waiting: Waiting) -> None:
        path, key = waiting.path, waiting.message.ordering_key
        lane = self._lanes.get((path, key))
        if lane is None:
            lane = self._lanes[path, key] = Lane(path, key)
        lane.queue.append(waiting)
        if lane.requests < (1 if key else _EAGER_REQUESTS):
            self._start(lane)
        elif not key and not lane.is_gathering and lane.requests < _MAX_REQUESTS:
            lane.is_gathering = True
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._start_gathered, lane)

    def _start_gathered(self, lane: Lane) -> None:
        lane.is_gathering = False
        if lane.queue:
            self._start(lane)

    def _start(self, lane: Lane) -> None:
        lane.requests += 1
        self._spawn(self._send_lane(lane))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_lane(self, lane: Lane) -> None:
        try:
            while lane.queue:
                await self._send(lane.path, take_batch(lane.queue))
        except BaseException:
            self._fail(lane.queue, session_closed(lane.path))
            raise
        finally:
            lane.requests -= 1
            if lane.ordering_key and not lane.queue and not lane.requests:
                self._lanes.pop((lane.path, lane.ordering_key), None)

    async def _send(self, path: str, batch: list[Waiting]) -> None:
        """Send messages in one request until they are confirmed or refused. Raises nothing."""
        pause = _FIRST_PAUSE_SECONDS
        while batch:
            try:
                if path not in self._complete:
                    await self._complete_topic(path, batch)
                response = await self._request(path, batch)
            except grpc.aio.AioRpcError as error:
                batch = await self._left_after(error, path, batch, pause)
                pause = min(2 * pause, _LAST_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001  as above
                self._fail(batch, PublishError(f"{path}: {type(error).__name__}: {error}"))
                return
            except BaseException:
                self._fail(batch, session_closed(path))
                raise
            else:
                self._confirm(batch, response.message_ids)
                return

    async def _complete_topic(self, path: str, batch: list[Waiting]) -> None:
        """Have a topic's queues created before this process's first message to it.

        A process that creates a topic creates its subscriptions a moment later. What is published
        in between is confirmed and reaches no subscription.
        """
        queues = {queue for each in batch for queue in each.if_missing.declare}
        if not queues:
            return
        try:
            await self._declare(queues, False)
        except BrokerUnavailable:
            return  # so is the publish: it looks again when it is repeated
        except PubsubTransportError as error:  # it may be allowed to publish, and to nothing else
            logger.debug("%s: not known whether its queues exist: %s", path, error)
        self._complete.add(path)

    async def _request(self, path: str, batch: list[Waiting]) -> Any:
        request = pb.PublishRequest(topic=path, messages=[each.message for each in batch])
        is_patient = all(each.retry_until for each in batch)
        timeout = _REQUEST_SECONDS if is_patient else ONE_ATTEMPT_SECONDS
        rpc = self._broker.rpc
        try:
            return await rpc.publish(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._broker.replace(rpc)  # a repetition would go into the same void
            raise

    async def _left_after(
        self, error: grpc.aio.AioRpcError, path: str, batch: list[Waiting], pause: float
    ) -> list[Waiting]:
        """Return what is to be sent again after an error, when it is time; the rest has failed."""
        if is_transient(error):
            next_try = self._clock() + pause
            latest = [min(each.retry_until, self._no_retry_after) for each in batch]
            overdue = [each for each, until in zip(batch, latest, strict=True) if until <= next_try]
            if pause > _QUIET_PAUSE_SECONDS:
                self._report(error, path)
            self._fail(overdue, publish_error(error, path))
            await self._broker.look_again()
            left = [each for each, until in zip(batch, latest, strict=True) if until > next_try]
            await self._pause(pause if left else 0)
            return left
        if is_missing(error):
            return await self._declare_missing(path, batch, error)
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT and len(batch) > 1:
            for each in batch:  # one bad message must not fail the others
                await self._send(path, [each])
            return []
        self._fail(batch, publish_error(error, path))
        return []

    async def _pause(self, seconds: float) -> None:
        """Sleep; the end of the session cuts it short, for one more try."""
        if self._is_ending.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_ending.wait(), seconds)

    def _report(self, error: grpc.aio.AioRpcError, path: str) -> None:
        """Log why publishing takes so long; once a minute, whatever the number of messages."""
        now = self._clock()
        if now < self._reported_at + _REPORT_EVERY_SECONDS:
            return
        self._reported_at = now
        logger.warning(
            "%s; publishing is tried again for up to %g s",
            translate(error, path),
            self._timeout_seconds,
            extra={"action": "publish_retried"},
        )

    async def _declare_missing(
        self, path: str, batch: list[Waiting], error: grpc.aio.AioRpcError
    ) -> list[Waiting]:
        """Create the topic for the messages that know how; return these, fail the others."""
        not_found = publish_error(error, path)
        known = [each for each in batch if each.if_missing.declare]
        self._fail([each for each in batch if not each.if_missing.declare], not_found, missing=True)
        if not known:
            return []
        self._complete.discard(path)
        try:
            await self._declare(
                {queue for each in known for queue in each.if_missing.declare}, True
            )
        except Exception as problem:  # noqa: BLE001  it is their callers' error
            self._fail(known, problem)
            return []
        self._complete.add(path)
        for each in known:
            each.if_missing = FAIL_IF_MISSING  # once
        return known
