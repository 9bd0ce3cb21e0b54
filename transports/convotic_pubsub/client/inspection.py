"""A look at what a subscription holds, for tools: :class:`Inspection`.

Pub/Sub can neither list nor peek: to see messages is to lease them. So an inspection leases what it
pulls, keeps the leases while it goes on, and gives back what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import all_ended, pb, translate
from convotic_pubsub.limits import MAX_ACK_ID_BYTES, MAX_ACK_IDS
from convotic_pubsub.names import subscription_path, topic_path
from convotic_pubsub.queue import Received, read_message

if TYPE_CHECKING:
    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.client.provisioning import Provisioner

__all__ = ["LEASE_SECONDS", "Inspection", "Seen", "find_waiting", "unfiltered_subscriptions"]

#: Runs a coroutine on the I/O thread and returns its result, within so many seconds.
_Call: TypeAlias = Callable[[Coroutine[Any, Any, Any], float | None], Any]

#: How long the service may think about whether there is something to pull.
_PULL_SECONDS = 3.0
#: How long what is held stays so without a renewal: also what a process that dies has held.
LEASE_SECONDS = 60
_RENEW_SECONDS = 25.0
#: Subscriptions that are looked into at a time.
_AT_ONCE = 100

#: How the service says that there is nothing to pull; and there is no subscription.
_NOTHING = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that is leased by an inspection."""

    received: Received
    ack_id: str


class Inspection:
    """Messages of one subscription, leased as long as the block lasts. For one thread.

    ::

        with session.resources.inspect("custom.orders.new.shop.dead-letter") as inspection:
            while seen := inspection.pull(1000):
                inspection.acknowledge([each.ack_id for each in seen if is_done(each)])

    Every method blocks, and raises PubsubTransportError. A process that dies leaves its leases:
    they end within a minute.

    Args:
        call: Runs a coroutine on the I/O thread.
        broker: The server.
        path: The subscription's full name.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        call: _Call,
        broker: Broker,
        path: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = call
        self._broker = broker
        self._path = path
        self._clock = clock
        self._held: dict[str, None] = {}
        self._renewed_at = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pull(self, limit: int) -> list[Seen]:
        """Lease up to ``limit`` more messages; an empty list if there are none now."""
        self._renew()
        answer = self._call(self._pull(limit))
        name = self._path.rsplit("/", 1)[-1]
        seen = [
            Seen(read_message(name, raw, redelivered=False), raw.ack_id)
            for raw in answer.received_messages
        ]
        self._held.update(dict.fromkeys(each.ack_id for each in seen))
        return seen

    async def _pull(self, limit: int) -> Any:
        broker = self._broker
        request = pb.PullRequest(
            subscription=self._path,
            max_messages=min(1000, limit),
            return_immediately=broker.is_emulated,
        )
        try:
            return await broker.rpc.pull(
                request, timeout=20 if broker.is_emulated else _PULL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:  # how the service says: nothing
                return pb.PullResponse()
            raise translate(error, self._path) from error

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Delete these from the subscription."""
        self._in_requests(ack_ids, self._broker.rpc.acknowledge)
        for ack_id in ack_ids:
            self._held.pop(ack_id, None)

    @property
    def held(self) -> int:
        """How many messages are leased now."""
        return len(self._held)

    def release(self) -> None:
        """Give back all that is held."""
        held, self._held = list(self._held), {}
        self._modify(held, 0)

    def _renew(self) -> None:
        now = self._clock()
        if now - self._renewed_at > _RENEW_SECONDS:
            self._renewed_at = now
            self._modify(list(self._held), LEASE_SECONDS)

    def _modify(self, ack_ids: Sequence[str], seconds: int) -> None:
        modify = self._broker.rpc.modify_ack_deadline
        self._in_requests(ack_ids, lambda path, ids: modify(path, ids, seconds))

    def _in_requests(
        self, ack_ids: Sequence[str], send: Callable[[str, Sequence[str]], Any]
    ) -> None:
        for some in _fitting(ack_ids):
            self._call(self._send(send, some))

    async def _send(self, send: Callable[[str, Sequence[str]], Any], some: Sequence[str]) -> None:
        try:
            await send(self._path, some)
        except grpc.aio.AioRpcError as error:
            raise translate(error, self._path) from error

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._run(coroutine, 60)


def _fitting(ack_ids: Sequence[str]) -> list[list[str]]:
    """Return ack ids as requests can carry them."""
    requests: list[list[str]] = []
    size = MAX_ACK_ID_BYTES
    for ack_id in ack_ids:
        size += len(ack_id) + 4
        if size > MAX_ACK_ID_BYTES or len(requests[-1]) >= MAX_ACK_IDS:
            requests.append([])
            size = len(ack_id) + 4
        requests[-1].append(ack_id)
    return requests


async def find_waiting(broker: Broker, paths: Sequence[str]) -> set[str]:
    """Return which of these subscriptions have a message now; one that is missing has none.

    A message that is found is given back at once; that counts as a delivery.
    """
    free = asyncio.Semaphore(_AT_ONCE)

    async def has_message(path: str) -> bool:
        async with free:
            try:
                answer = await broker.rpc.pull(
                    pb.PullRequest(
                        subscription=path, max_messages=1, return_immediately=broker.is_emulated
                    ),
                    timeout=_PULL_SECONDS,
                )
                ids = [each.ack_id for each in answer.received_messages]
                if ids:
                    await broker.rpc.modify_ack_deadline(path, ids, 0)
            except grpc.aio.AioRpcError as error:
                if error.code() in _NOTHING:
                    return False
                raise translate(error, path) from error
            return bool(ids)

    found = await all_ended(map(has_message, paths))
    return {path for path, has in zip(paths, found, strict=True) if has}


async def unfiltered_subscriptions(
    broker: Broker, provisioner: Provisioner, project: str, topic: str, attribute: str
) -> list[str]:
    """Return the subscriptions of a topic in this project whose filter ignores an attribute.

    They get what is published there for one subscription alone.
    """
    names = await provisioner.list_topic_subscriptions(topic)
    paths = [subscription_path(project, name) for name in names]
    try:
        found = await all_ended(map(broker.rpc.get_subscription, paths))
    except grpc.aio.AioRpcError as error:
        raise translate(error, topic_path(project, topic)) from error
    return [name for name, each in zip(names, found, strict=True) if attribute not in each.filter]
