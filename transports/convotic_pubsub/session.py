"""The process's client: wires broker, publisher, consumers and transient queues together.

What is outstanding belongs to the process, not to a kombu connection: connections and channels come
and go (a reconnect, a producer pool) while messages run. A session is shared by all users of the
same options (``registry.py``), and never crosses a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from convotic_pubsub.celery.bindings import Bindings
from convotic_pubsub.celery.envelope import celery_queue
from convotic_pubsub.celery.exchanges import Exchanges
from convotic_pubsub.celery.transient_queues import TransientQueues
from convotic_pubsub.client.broker import Broker
from convotic_pubsub.client.channels import account_name
from convotic_pubsub.client.io_loop import IoLoop
from convotic_pubsub.client.provisioning import Provisioner
from convotic_pubsub.client.resources import Resources
from convotic_pubsub.client.rpc import translate
from convotic_pubsub.consume.consumers import Consumers, never_dispatched
from convotic_pubsub.errors import PublishError, PubsubTransportError
from convotic_pubsub.figures import SessionVitals
from convotic_pubsub.outgoing import FAIL_IF_MISSING, Answer, IfMissing, OutgoingMessage, Sending
from convotic_pubsub.publish.forked import Relay, serve_child
from convotic_pubsub.publish.publisher import ONE_ATTEMPT_SECONDS, Publisher

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Iterable

    from convotic_pubsub.client.admin import Admin
    from convotic_pubsub.consume.ports import Dispatch
    from convotic_pubsub.consume.subscription import Subscription
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec

__all__ = ["Session"]

T = TypeVar("T")

#: How long starting waits for the emulator's address and its first answer.
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
#: How long a publish may block beyond its own limit, before it counts as not confirmed.
_MARGIN_SECONDS = 5.0


class Session:
    """A connection to one project. Public methods may be called from any thread but the I/O thread.

    Args:
        options: whom to talk to, and how.

    Raises:
        BrokerUnavailable: the emulator can't be reached.
        PubsubTransportError: options or credentials can't be used.
    """

    def __init__(self, options: TransportOptions) -> None:
        self.options = options
        self.pid = os.getpid()
        self.clock: Callable[[], float] = time.monotonic
        self.broker = Broker(options, self.clock)
        self.provisioner = Provisioner(self.broker, options)
        #: What exists on the server, for threads that may block.
        self.resources = Resources(self.call, options, self.broker, self.provisioner)
        self.publisher = Publisher(
            options, self.broker, clock=self.clock, post=self.post, declare=self._declare
        )
        #: Queues that live in this process only (replies, remote control, events).
        self.transient = TransientQueues(
            options,
            self.resources,
            self,
            address=lambda: self.broker.address,
            consume=self._consume_control,
        )
        self.bindings = Bindings(
            options, self.resources, list_subscriptions=self._list_subscriptions, clock=self.clock
        )
        self.exchanges = Exchanges(options, self.resources, self, self.bindings, self.transient)
        self._closed = False
        #: In a forked child: the way to the parent's session.
        self._relay: Relay | None = None
        self._children: dict[asyncio.Task[None], socket.socket] = {}
        self._io = IoLoop()
        self.consumers = Consumers(
            options.project,
            self.broker,
            self.provisioner,
            self._io,
            clock=self.clock,
            publish=self.publisher.publish,
        )
        #: Every delivery that is in this process (I/O thread).
        self.outstanding = self.consumers.outstanding
        #: Confirmed dead letters by queue.
        self.dead_lettered = self.consumers.dead_lettered
        try:
            self.call(self.broker.connect(), timeout=_START_SECONDS)
        except BaseException:
            self._io.stop()
            raise

    # -- threads ----------------------------------------------------------------------------------

    def post(self, function: Callable[..., object], *args: object) -> bool:
        """Run ``function`` on the I/O thread soon, in the order of the posts. Does not block.

        False: the session has been closed, or belongs to another process.
        """
        return self._io.post(function, *args)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the I/O thread and wait for its result.

        Raises:
            BrokerUnavailable: no result within ``timeout`` seconds.
        """
        try:
            return self._io.call(coroutine, timeout)
        except grpc.aio.AioRpcError as error:
            raise translate(error, f"projects/{self.options.project}") from error

    def vitals(self) -> SessionVitals:
        """Return how this session is doing, from any thread and whatever the I/O thread does."""
        now = self.clock()
        return SessionVitals(
            is_alive=self._io.is_alive,
            queues=self.consumers.vitals(now),
            outstanding=len(self.outstanding),
            lease_behind_seconds=self.consumers.lease_behind_seconds(now),
            publishes=self.publisher.latencies,
            publish_failures=self.publisher.failures,
            dead_lettered=dict(self.dead_lettered),
        )

    @cached_property
    def admin(self) -> Admin:
        """What exists on the server, and who may use it, for tools that change it."""
        from convotic_pubsub.client.admin import Admin  # noqa: PLC0415  50 ms of IAM's messages

        return Admin(self.call, self.options.project, self.broker)

    def account_name(self) -> str:
        """Return the e-mail address that the credentials stand for, "" if they don't say. Blocks.

        Raises:
            AccessDenied: there are none, or they are refused.
        """
        return account_name(self.options)

    # -- the end ----------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self, timeout_seconds: float = _STOP_SECONDS) -> None:
        """Give back what waits, confirm acks and publishes, and end the I/O thread. Idempotent."""
        if self._closed or self.pid != os.getpid():
            return
        self._closed = True
        with contextlib.suppress(PubsubTransportError):
            # First, not last: a process that is killed on the way must not leave these behind.
            self.transient.close()
            self.call(self._shut_down(), timeout=timeout_seconds)
        self._io.stop()

    async def _shut_down(self) -> None:
        await self.consumers.end()
        await self.publisher.finish()
        await self.broker.close()

    def flush(self, timeout_seconds: float = _STOP_SECONDS) -> None:
        """Wait until every settlement and publish so far is confirmed; closing has done it already.

        Raises:
            BrokerUnavailable: that took longer than ``timeout_seconds``.
        """
        if self._closed or self.pid != os.getpid():
            return
        self.call(self._flush(), timeout=timeout_seconds)

    async def _flush(self) -> None:
        await self.consumers.settled()
        await self.publisher.flush()

    # -- forks ------------------------------------------------------------------------------------

    def serve_child(self, sock: socket.socket) -> None:
        """Publish for a child just forked, whose requests come over ``sock``."""
        self.post(self._serve_child, sock)

    def _serve_child(self, sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(serve_child(sock, self._answer_child))
        self._children[task] = sock
        task.add_done_callback(self._children.pop)

    async def _answer_child(self, method: str, args: tuple[Any, ...]) -> Any:
        if method == "publish":
            message, if_missing, retry = args
            return await self.publisher.publish(message, if_missing=if_missing, retry=retry)
        if method == "list_subscriptions":
            return await self.provisioner.list_topic_subscriptions(args[0])
        spec = self.spec(args[0]) if isinstance(args[0], str) else args[0]
        if method == "exists":
            return await self.provisioner.exists(spec)
        return await self.provisioner.ensure(spec)

    def become_forked(self, sock: socket.socket | None) -> None:
        """In a forked child: ask the parent's session over ``sock``; None: nothing can be asked."""
        for other in self._children.values():
            other.close()
        self._children.clear()
        self._io.forked()
        self.transient.forked()
        self.bindings.forked()
        self._relay = Relay(sock)
        self.resources.ask_parent = self._relay.ask

    # -- publishing -------------------------------------------------------------------------------

    def publish(
        self,
        message: OutgoingMessage,
        *,
        sending: Sending = "batched",
        if_missing: IfMissing = FAIL_IF_MISSING,
        retry: bool = True,
    ) -> Answer:
        """Publish a raw message; see :meth:`.Publisher.publish`."""
        if self._relay is not None:
            return self._relay.ask("publish", message, if_missing, retry)
        return self.publisher.publish(message, sending=sending, if_missing=if_missing, retry=retry)

    def publish_confirmed(
        self,
        message: OutgoingMessage,
        *,
        if_missing: IfMissing = FAIL_IF_MISSING,
        retry: bool = True,
    ) -> str:
        """Publish a raw message and return its id once the server has confirmed it.

        Raises:
            PublishError: refused, or not confirmed in time.
        """
        future = self.publish(message, sending="blocking", if_missing=if_missing, retry=retry)
        limit = self.options.publish_timeout_seconds + _MARGIN_SECONDS
        limit = limit if retry else ONE_ATTEMPT_SECONDS
        try:
            return future.result(limit)
        except TimeoutError:
            raise PublishError(
                f"{message.topic}: not confirmed within {limit:g} s; it may be stored"
            ) from None

    async def _declare(self, queues: Iterable[str], again: bool) -> None:
        for queue in queues:
            await self.provisioner.ensure(self.spec(queue), again=again)

    def _list_subscriptions(self, topic: str) -> concurrent.futures.Future[list[str]]:
        """Begin to list a topic's subscriptions."""
        if self._relay is not None:
            return self._relay.ask("list_subscriptions", topic)
        return self._io.submit(self.provisioner.list_topic_subscriptions(topic))

    # -- consuming --------------------------------------------------------------------------------

    def spec(self, queue: str) -> QueueSpec:
        """Return a queue's specification: the one given in the options, or an ordinary one."""
        return self.options.queues.get(queue) or celery_queue(queue, self.options)

    def consume(self, spec: QueueSpec, dispatch: Dispatch) -> Subscription:
        """Start to pull a queue; ``dispatch(delivery)`` is called on the I/O thread."""
        return self.call(self.consumers.start(spec, dispatch), timeout=60)

    def _consume_control(self, spec: QueueSpec) -> Callable[[], None]:
        """Pull a control subscription, whose messages are settled where they are received."""
        subscription = self.consume(spec, never_dispatched)
        return lambda: self.cancel(subscription)

    def cancel(self, subscription: Subscription) -> None:
        """Stop pulling and give back what has not been taken; what runs keeps its lease.

        Does not block; :meth:`flush` waits for it.
        """
        self.post(self.consumers.stop, subscription)

    def get(self, spec: QueueSpec, dispatch: Dispatch) -> None:
        """Pull one message if there is one now, and call ``dispatch`` with it."""
        self.call(self.consumers.pull_one(spec, dispatch), timeout=30)
