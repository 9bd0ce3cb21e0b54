"""The process's client: one I/O thread that owns channels, pullers, leases and publishing.

What is outstanding belongs to the process, not to a kombu connection: connections and channels come
and go (a reconnect, a producer pool) while messages run. A session is shared by everybody who uses
the same options (``registry.py``), and never crosses a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from convotic_pubsub.celery.envelope import celery_queue
from convotic_pubsub.celery.transient_queues import TransientQueues
from convotic_pubsub.client.backlog_size import Depth, read_depths
from convotic_pubsub.client.channels import ChannelPool
from convotic_pubsub.client.io_thread import FORKED, IoThread
from convotic_pubsub.client.provisioning import Admin
from convotic_pubsub.client.rpc import Rpc, translate
from convotic_pubsub.consume.delivery import Recent
from convotic_pubsub.consume.leases import AckBatcher, LeaseTimer
from convotic_pubsub.consume.streams import Puller
from convotic_pubsub.consume.subscription import Offer, QueueConsumer
from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError
from convotic_pubsub.names import subscription_path
from convotic_pubsub.publish.publisher import Publisher
from convotic_pubsub.publish.relay import RelayClient, serve_child

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from convotic_pubsub.consume.delivery import Delivery
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.publish.publisher import Sending
    from convotic_pubsub.queue import QueueSpec

__all__ = ["Session"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long starting waits for the emulator's address and its first answer.
_START_SECONDS = 60.0
#: A lost emulator is looked for at most this often.
_LOOK_AGAIN_SECONDS = 1.0
#: No unary call of ours has a longer timeout.
_LONGEST_CALL_SECONDS = 30.0
#: Our emulator names itself in the initial metadata of every answer.
_OUR_EMULATOR = "convotic-emulator"
_STOP_SECONDS = 10.0
#: How long a publish may block beyond its own limit, before it counts as not confirmed.
_MARGIN_SECONDS = 5.0
#: Messages given back that are remembered, to tell their redelivery.
_MAX_RETURNED = 10_000


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
        self.client_id = str(uuid.uuid4())
        self.clock: Callable[[], float] = time.monotonic
        #: Every delivery that is in this process, by subscription and message id (I/O thread).
        self.outstanding: dict[tuple[str, str], Delivery] = {}
        #: What this process has had and given back, lately (I/O thread).
        self.returned = Recent(_MAX_RETURNED)
        self.publisher = Publisher(self, self.post)
        #: Whether the server honours flow control on streams.
        self.streams = options.pull_mode != "unary"
        #: Queues that live in this process only (replies, remote control, events).
        self.transient = TransientQueues(self)
        self.dead_lettered: Counter[str] = Counter()
        #: Queues with a topic that this process has asked for, by name.
        self.declared: set[str] = set()
        self._ackers: dict[str, AckBatcher] = {}
        self._consumers: dict[QueueConsumer, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._address: str | None = None
        self._looked_at = 0.0
        self._closed = False
        #: In a forked child: the way to the parent's session.
        self._relay: RelayClient | None = None
        self._children: dict[asyncio.Task[None], socket.socket] = {}
        self._io = IoThread()
        try:
            self.call(self._start(), timeout=_START_SECONDS)
        except BaseException:
            self._io.stop()
            raise

    # -- threads ----------------------------------------------------------------------------------

    def post(self, function: Callable[..., object], *args: object) -> bool:
        """Run ``function`` on the I/O thread soon, in the order of the posts. Does not block.

        False: the session has been closed, or belongs to another process.
        """
        return self._io.post(function, *args)

    def post_without_hurry(self, function: Callable[..., object], *args: object) -> None:
        """Run ``function`` on the I/O thread in its order, at the latest before a lease is due."""
        self._io.post_without_hurry(function, *args)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the I/O thread and wait for its result.

        Raises:
            BrokerUnavailable: no result within ``timeout`` seconds.
        """
        try:
            return self._io.call(coroutine, timeout)
        except grpc.aio.AioRpcError as error:
            raise translate(error, f"projects/{self.options.project}") from error

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    # -- start and stop ---------------------------------------------------------------------------

    async def _start(self) -> None:
        self.lease_timer = LeaseTimer(self.clock, _lease_due, self._io.run_posted)
        await self._connect()

    async def _connect(self) -> None:
        self._address = await self._find_emulator()
        self.channels = ChannelPool(self.options, self._address)
        self.admin = Admin(lambda: self.rpc, self.options, lambda: self.is_emulated)
        if self._address:
            ours = await self._is_ours()
            self.streams = self.options.pull_mode == "stream" or (
                self.options.pull_mode == "auto" and ours
            )

    async def _find_emulator(self) -> str | None:
        host = self.options.emulator_host
        if callable(host):
            return await asyncio.get_running_loop().run_in_executor(None, host)
        return host

    async def _is_ours(self) -> bool:
        """Ask the emulator who it is; this also shows whether anybody is there."""
        call = self.rpc.list_topics(self.options.project)
        try:
            metadata = await call.initial_metadata()
            await call
        except grpc.aio.AioRpcError as error:
            raise BrokerUnavailable(
                f"no Pub/Sub emulator answers at {self._address}: {error.details()}"
            ) from error
        return any(key == _OUR_EMULATOR for key, _ in metadata or ())

    async def look_again(self) -> None:
        """After a lost connection: ask where the emulator is now, and follow it."""
        now = self.clock()
        if not callable(self.options.emulator_host) or now < self._looked_at + _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = now
        try:
            address = await self._find_emulator()
        except Exception as error:  # noqa: BLE001  the caller backs off and asks again
            logger.warning(
                "The emulator can't be started: %s", error, extra={"action": "emulator_lost"}
            )
            return
        if address != self._address:
            old, self.channels = self.channels, ChannelPool(self.options, address)
            self._address = address
            # What is under way fails by itself, and is repeated; a cancelled call would not be.
            task = asyncio.get_running_loop().create_task(old.close(_LONGEST_CALL_SECONDS))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def close(self, timeout_seconds: float = _STOP_SECONDS) -> None:
        """Hand back what waits, confirm acks and publishes, and end the I/O thread. Idempotent."""
        if self._closed or self.pid != os.getpid():
            return
        self._closed = True
        with contextlib.suppress(PubsubTransportError):
            # First, not last: a process that is killed on the way must not leave these behind.
            self.transient.close()
            self.call(self._shut_down(), timeout=timeout_seconds)
        self._io.stop()

    async def _shut_down(self) -> None:
        for consumer in list(self._consumers):
            self._stop(consumer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=3.0)
        for delivery in list(self.outstanding.values()):
            delivery.consumer.abandon(delivery)  # held for its ETA, say; nothing pulls it any more
        await self._flush()
        await self.channels.close()

    def flush(self, timeout_seconds: float = _STOP_SECONDS) -> None:
        """Wait until every settlement and publish so far is confirmed; closing has done it already.

        Raises:
            BrokerUnavailable: that took longer than ``timeout_seconds``.
        """
        if self._closed or self.pid != os.getpid():
            return
        self.call(self._flush(), timeout=timeout_seconds)

    async def _flush(self) -> None:
        await asyncio.gather(*(consumer.settled() for consumer in self._all_consumers()))
        await asyncio.gather(*(acker.wait_idle() for acker in self._ackers.values()))
        await self.publisher.flush()

    def _all_consumers(self) -> set[QueueConsumer]:
        return {*self._consumers, *(d.consumer for d in self.outstanding.values())}

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
            return await asyncio.wrap_future(self.publish(*args))
        spec = self.spec(args[0])
        if method == "exists":
            return await self.admin.exists(spec)
        return await self.admin.ensure(spec, again=method == "ensure_again")

    def forked(self, sock: socket.socket | None) -> None:
        """Become, in a forked child, a session that asks the parent's (None: that can't)."""
        for other in self._children.values():
            other.close()
        self._children.clear()
        self._io.forked()
        self.transient.forked()
        self._relay = RelayClient(sock) if sock is not None else None

    def check_process(self) -> None:
        """Make sure that this process may do more than publish.

        Raises:
            PubsubTransportError: it was forked from the session's.
        """
        if self.pid != os.getpid():
            raise PubsubTransportError(FORKED)

    # -- what channels ask for --------------------------------------------------------------------

    @property
    def rpc(self) -> Rpc:
        """The methods for unary calls (I/O thread)."""
        return self.channels.unary

    @property
    def address(self) -> str:
        """Where the server is: an emulator's ``host:port``, or the service's endpoint."""
        return self._address or self.options.endpoint

    @property
    def is_emulated(self) -> bool:
        """Whether the server is an emulator."""
        return self._address is not None

    def depths(self, subscriptions: Iterable[str]) -> dict[str, Depth]:
        """Return how many messages subscriptions have, for those of which that is known.

        Raises:
            BrokerUnavailable: the server does not answer.
        """
        return self.call(read_depths(self, subscriptions), timeout=30)

    def publish(
        self,
        topic: str,
        data: bytes,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
        *,
        sending: Sending = "batched",
    ) -> concurrent.futures.Future[str]:
        """Publish a raw message; see :meth:`.Publisher.publish`."""
        if self._relay is not None:
            return self._relay.ask("publish", topic, data, dict(attributes or {}), ordering_key)
        return self.publisher.publish(topic, data, attributes or {}, ordering_key, sending=sending)

    def publish_confirmed(
        self, topic: str, data: bytes, attributes: Mapping[str, str] | None = None
    ) -> str:
        """Publish a raw message and return its id once the server has confirmed it."""
        timeout = self.options.publish_timeout_seconds + _MARGIN_SECONDS
        return self.publish(topic, data, attributes, sending="blocking").result(timeout)

    def spec(self, queue: str) -> QueueSpec:
        """Return a queue's specification: the one given in the options, or an ordinary one."""
        return self.options.queues.get(queue) or celery_queue(queue, self.options)

    def ensure(self, spec: QueueSpec, *, ephemeral: bool = False) -> None:
        """Create or verify a queue's topic and subscription; see :meth:`Admin.ensure`.

        An ephemeral one is created whatever ``provision`` says: only the process itself can do it.
        """
        if self._relay is not None and not ephemeral:
            self._relay.ask("ensure", spec.queue).result(60)
        else:
            self.call(self.admin.ensure(spec, ephemeral=ephemeral), timeout=60)
        self.declared.add(spec.queue)

    def ensure_again(self, spec: QueueSpec) -> None:
        """Do what :meth:`ensure` did once more: something of the queue was deleted since."""
        if self._relay is not None:
            self._relay.ask("ensure_again", spec.queue).result(60)
        else:
            self.call(self.admin.ensure(spec, again=True), timeout=60)

    def delete_subscription(self, spec: QueueSpec) -> None:
        """Delete a subscription; one that is missing is no error."""
        self.call(self.admin.delete(spec, topic=False), timeout=20)

    def list_topic_subscriptions(self, topic: str) -> list[str]:
        """Return the short names of a topic's subscriptions in this project."""
        return self.call(self.admin.list_topic_subscriptions(topic), timeout=60)

    def delete_named(self, subscription: str) -> None:
        """Delete a subscription by its name; one that is missing is no error."""
        self.call(self.admin.delete_subscription(subscription), timeout=20)

    def exists(self, spec: QueueSpec) -> bool:
        """Ask the server whether a queue's subscription exists."""
        if self._relay is not None:
            return bool(self._relay.ask("exists", spec.queue).result(30))
        return self.call(self.admin.exists(spec), timeout=30)

    def acker(self, subscription: str) -> AckBatcher:
        """Return the batcher of one subscription (I/O thread)."""
        acker = self._ackers.get(subscription)
        if acker is None:
            path = subscription_path(self.options.project, subscription)
            acker = self._ackers[subscription] = AckBatcher(lambda: self.channels.acks, path)
        return acker

    def consume(self, spec: QueueSpec, offer: Offer) -> QueueConsumer:
        """Start to pull a queue; ``offer(delivery)`` is called on the I/O thread."""
        return self.call(self._consume(spec, offer), timeout=60)

    async def _consume(self, spec: QueueSpec, offer: Offer) -> QueueConsumer:
        consumer = QueueConsumer(self, spec, offer)
        puller = Puller(self, consumer)
        self._consumers[consumer] = asyncio.get_running_loop().create_task(puller.run())
        return consumer

    def cancel(self, consumer: QueueConsumer) -> None:
        """Stop pulling and hand back what has not been taken; what runs keeps its lease.

        Does not block; :meth:`flush` waits for it.
        """
        self.post(self._stop, consumer)

    def _stop(self, consumer: QueueConsumer) -> None:
        consumer.hand_back_ready()
        task = self._consumers.pop(consumer, None)
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def get(self, spec: QueueSpec, offer: Offer) -> None:
        """Pull one message now, without waiting for one; ``offer`` is called when there was one."""
        self.call(self._get(spec, offer), timeout=30)

    async def _get(self, spec: QueueSpec, offer: Offer) -> None:
        await self.acker(spec.subscription).wait_idle()
        await self.admin.ensure(spec)
        consumer = QueueConsumer(self, spec, offer)
        await Puller(self, consumer).pull_now(1)
        await consumer.decided()

    def purge(self, spec: QueueSpec) -> int:
        """Acknowledge all that is available now, unread; return how many that were."""
        return self.call(self._purge(spec))

    async def _purge(self, spec: QueueSpec) -> int:
        await self.admin.ensure(spec)
        await self.acker(spec.subscription).wait_idle()
        return await self.admin.purge(spec)

    def delete(self, spec: QueueSpec) -> None:
        """Delete an ordinary queue's subscription and topic."""
        self.call(self.admin.delete(spec, topic=True), timeout=60)

    def count_dead_letter(self, queue: str) -> None:
        """Count one message given up (I/O thread)."""
        self.dead_lettered[queue] += 1


def _lease_due(delivery: Delivery, now: float) -> None:
    delivery.consumer.lease_due(delivery, now)
