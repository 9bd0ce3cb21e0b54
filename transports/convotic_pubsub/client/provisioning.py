"""Topics and subscriptions: make what a queue needs, and say where what exists differs.

``create`` only creates. What exists with other settings is reported once and left alone, so that
two versions in a rolling deploy don't fight. All functions run on the I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from convotic_pubsub.client.resource_messages import (
    read_subscription,
    read_topic,
    subscription_message,
    topic_message,
)
from convotic_pubsub.client.rpc import all_ended, pb, translate
from convotic_pubsub.errors import SubscriptionMismatch, SubscriptionNotFound
from convotic_pubsub.names import subscription_path, topic_path
from convotic_pubsub.topology import (
    EMULATOR_RETENTION_SECONDS,
    subscription_differences,
    topic_differences,
    wanted_dead_letter_subscription,
    wanted_subscription,
    wanted_topics,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec
    from convotic_pubsub.topology import Difference, SubscriptionSettings, TopicSettings

__all__ = ["Provisioner", "create_subscription"]

logger = logging.getLogger(__name__)

#: What makes a queue unfit: its messages would be others, or come in another order. Another filter
#: is a warning, for the worker looks at each message itself.
_REFUSED = frozenset({"topic", "enable_message_ordering"})


class Provisioner:
    """Makes sure, once a process, that a queue's resources exist."""

    def __init__(self, broker: Broker, options: TransportOptions) -> None:
        self._broker = broker
        self._options = options
        self._project = options.project
        self._provision = options.provision
        self._ensured: dict[str, asyncio.Task[None]] = {}
        self._ephemeral: set[str] = set()

    async def ensure(
        self, spec: QueueSpec, *, ephemeral: bool = False, again: bool = False
    ) -> None:
        """Create or verify what ``spec`` names; does nothing the second time, but for ``again``.

        What was once ``ephemeral`` is created whatever the provision mode says.

        Raises:
            SubscriptionMismatch: it exists with another topic or ordering, which can't be changed.
            PubsubTransportError: the server refused or can't be reached; asking again tries again.
        """
        if ephemeral:
            self._ephemeral.add(spec.queue)
        if again:
            self.forget(spec.queue)
        ephemeral = spec.queue in self._ephemeral
        task = self._ensured.get(spec.queue)
        if self._provision == "off" and not ephemeral and task is None:
            return
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            create = ephemeral or self._provision == "create"
            # A process's own subscription is on a topic that others may own.
            may_lack_topics = ephemeral and self._provision != "create"
            task = asyncio.get_running_loop().create_task(
                self._ensure(spec, create=create, may_lack_topics=may_lack_topics)
            )
            self._ensured[spec.queue] = task
        await asyncio.shield(task)

    def forget(self, queue: str) -> None:
        """Look again at the next :meth:`ensure`, since something of it was deleted."""
        self._ensured.pop(queue, None)

    async def _ensure(self, spec: QueueSpec, *, create: bool, may_lack_topics: bool) -> None:
        wanted = [wanted_subscription(spec, self._options)]
        if (dead_letters := wanted_dead_letter_subscription(spec, self._options)) is not None:
            wanted.append(dead_letters)
        topics = wanted_topics(spec, self._options)
        # First: an unusable one must not leave a topic without subscribers.
        exist = await all_ended(self._compare(each) for each in wanted)
        await all_ended(
            self._topic(topic, create=create, may_be_denied=may_lack_topics) for topic in topics
        )
        missing = [each for each, exists in zip(wanted, exist, strict=True) if not exists]
        await all_ended(self._subscription(each, create=create) for each in missing)

    async def _topic(self, wanted: TopicSettings, *, create: bool, may_be_denied: bool) -> None:
        try:
            if create:
                await self._broker.rpc.create_topic(topic_message(wanted))
            else:
                existing = read_topic(await self._broker.rpc.get_topic(wanted.name))
                _warn_of_drift("Topic", wanted.name, topic_differences(wanted, existing))
        except grpc.aio.AioRpcError as error:
            # Without the right to create topics the service does not say that this one exists;
            # the subscription is refused then if it does not.
            is_denied = error.code() is grpc.StatusCode.PERMISSION_DENIED
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS and not (
                is_denied and may_be_denied
            ):
                raise translate(error, wanted.name) from error

    async def _compare(self, wanted: SubscriptionSettings) -> bool:
        """Say whether a subscription exists; report where it differs."""
        try:
            existing = await self._broker.rpc.get_subscription(wanted.name)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise translate(error, wanted.name) from error
        differences = subscription_differences(
            wanted, read_subscription(existing), is_emulated=self._broker.is_emulated
        )
        _refuse_mismatch(wanted, differences)
        _warn_of_drift("Subscription", wanted.name, differences)
        return True

    async def _subscription(self, wanted: SubscriptionSettings, *, create: bool) -> None:
        """Create a subscription that is missing."""
        if not create:
            raise SubscriptionNotFound(
                f"{wanted.name} does not exist: create it, or let provision=create do so"
            )
        try:
            await create_subscription(self._broker, wanted)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise translate(error, wanted.name) from error

    async def delete(self, spec: QueueSpec, *, topic: bool) -> None:
        """Delete a queue's subscription, and its topic if asked; missing ones are no error."""
        self.forget(spec.queue)
        await self.delete_subscription(spec.subscription)
        if topic:
            path = topic_path(self._project, spec.topic)
            await _unless_missing(self._broker.rpc.delete_topic(path), path)

    async def delete_subscription(self, name: str) -> None:
        """Delete a subscription; a missing one is no error."""
        path = subscription_path(self._project, name)
        await _unless_missing(self._broker.rpc.delete_subscription(path), path)

    async def exists(self, spec: QueueSpec) -> bool:
        """Ask the server whether a queue's subscription exists."""
        try:
            await self._broker.rpc.get_subscription(
                subscription_path(self._project, spec.subscription)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    async def purge(self, spec: QueueSpec) -> int:
        """Acknowledge all that is available now, unread; return how many that were."""
        path = subscription_path(self._project, spec.subscription)
        request = pb.PullRequest(subscription=path, max_messages=1000, return_immediately=True)
        count = 0
        while messages := (await self._broker.rpc.pull(request, timeout=20)).received_messages:
            await self._broker.rpc.acknowledge(path, [each.ack_id for each in messages])
            count += len(messages)
        return count

    async def list_topic_subscriptions(self, topic: str) -> list[str]:
        """Return the short names of a topic's subscriptions in this project."""
        path, token = topic_path(self._project, topic), ""
        own = subscription_path(self._project, "")
        names: list[str] = []
        while True:
            try:
                page = await self._broker.rpc.list_topic_subscriptions(path, token)
            except grpc.aio.AioRpcError as error:
                raise translate(error, path) from error
            names += [name.removeprefix(own) for name in page.subscriptions if own in name]
            token = page.next_page_token
            if not token:
                return names


async def _unless_missing(call: Awaitable[Any], path: str) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise translate(error, path) from error


async def create_subscription(broker: Broker, wanted: SubscriptionSettings) -> None:
    """Create a subscription (I/O thread).

    Raises:
        grpc.aio.AioRpcError: as the server answered.
    """
    message = subscription_message(wanted)
    try:
        await broker.rpc.create_subscription(message)
    except grpc.aio.AioRpcError as error:
        retention = message.message_retention_duration
        refused = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
        if error.code() not in refused or retention.seconds <= EMULATOR_RETENTION_SECONDS:
            raise
        # Google's emulator takes at most 7 days, the service 31.
        retention.seconds = EMULATOR_RETENTION_SECONDS
        await broker.rpc.create_subscription(message)


def _refuse_mismatch(wanted: SubscriptionSettings, differences: Iterable[Difference]) -> None:
    fixed = [str(each) for each in differences if each.setting in _REFUSED]
    if fixed:
        raise SubscriptionMismatch(
            f"{wanted.name} exists and can't be changed: {'; '.join(fixed)}. "
            "`convotic topology apply` replaces it and keeps its messages; or give the handler "
            "another subscription="
        )


def _warn_of_drift(kind: str, path: str, differences: Iterable[Difference]) -> None:
    drift = [str(each) for each in differences]
    if drift:
        logger.warning(
            "%s %s differs from what its queue asks for and is left as it is: %s "
            "(`convotic topology apply` changes it)",
            kind,
            path,
            "; ".join(drift),
            extra={"action": f"{kind.lower()}_drift", kind.lower(): path, "drift": drift},
        )
