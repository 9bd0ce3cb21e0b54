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

from convotic_pubsub.client.rpc import pb, translate
from convotic_pubsub.errors import SubscriptionMismatch, SubscriptionNotFound
from convotic_pubsub.limits import lease_seconds
from convotic_pubsub.names import check_resource_id, subscription_path, topic_path

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec

__all__ = ["Provisioner"]

logger = logging.getLogger(__name__)

#: What of a subscription can be changed, and is compared beside its labels.
_CHANGEABLE = (
    "filter",
    "ack_deadline_seconds",
    "enable_exactly_once_delivery",
    "dead_letter_policy",
    "retry_policy",
    "message_retention_duration",
    "expiration_policy",
)
#: What Google's emulator takes at most (facts: 0.8.20 refuses more for a subscription).
_EMULATOR_RETENTION_SECONDS = 7 * 24 * 3600


class Provisioner:
    """Makes sure, once a process, that a queue's resources exist."""

    def __init__(self, broker: Broker, options: TransportOptions) -> None:
        self._broker = broker
        self._project = options.project
        self._provision = options.provision
        self._labels = options.labels
        self._regions = options.message_storage_regions
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
            task = asyncio.get_running_loop().create_task(self._ensure(spec, create=create))
            self._ensured[spec.queue] = task
        await asyncio.shield(task)

    def forget(self, queue: str) -> None:
        """Look again at the next :meth:`ensure`, since something of it was deleted."""
        self._ensured.pop(queue, None)

    async def _ensure(self, spec: QueueSpec, *, create: bool) -> None:
        topics = [topic for topic in (spec.topic, spec.dead_letter_topic) if topic]
        wanted = [self._wanted(spec)]
        if spec.dead_letter_topic:
            wanted.append(self._wanted_dead_letter(spec))
        # First: one that can't be used must not lead to a topic that nobody subscribes to.
        exist = await asyncio.gather(*(self._compare(each) for each in wanted))
        await asyncio.gather(*(self._topic(topic, spec, create=create) for topic in topics))
        missing = [each for each, exists in zip(wanted, exist, strict=True) if not exists]
        await asyncio.gather(*(self._subscription(each, create=create) for each in missing))

    async def _topic(self, topic: str, spec: QueueSpec, *, create: bool) -> None:
        path = topic_path(self._project, topic)
        check_resource_id("topic", path.rsplit("/", 1)[1])
        wanted = pb.Topic(name=path, labels={**self._labels, **spec.labels})
        wanted.message_storage_policy.allowed_persistence_regions.extend(self._regions)
        if not self._regions:
            wanted.ClearField("message_storage_policy")
        try:
            if create:
                await self._broker.rpc.create_topic(wanted)
            else:
                _report_topic_drift(wanted, await self._broker.rpc.get_topic(path))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise translate(error, path) from error

    async def _compare(self, wanted: Any) -> bool:
        """Say whether a subscription exists; report where it differs."""
        check_resource_id("subscription", wanted.name.rsplit("/", 1)[1])
        try:
            existing = await self._broker.rpc.get_subscription(wanted.name)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise translate(error, wanted.name) from error
        _report_drift(wanted, existing, is_emulated=self._broker.is_emulated)
        return True

    async def _subscription(self, wanted: Any, *, create: bool) -> None:
        """Create a subscription that is missing."""
        if not create:
            raise SubscriptionNotFound(
                f"{wanted.name} does not exist: create it, or let provision=create do so"
            )
        try:
            await self._create(wanted)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise translate(error, wanted.name) from error

    async def _create(self, wanted: Any) -> None:
        try:
            await self._broker.rpc.create_subscription(wanted)
        except grpc.aio.AioRpcError as error:
            retention = wanted.message_retention_duration
            refused = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
            if error.code() not in refused or retention.seconds <= _EMULATOR_RETENTION_SECONDS:
                raise
            # Google's emulator takes no more than 7 days, the service 31.
            retention.seconds = _EMULATOR_RETENTION_SECONDS
            await self._broker.rpc.create_subscription(wanted)

    def _wanted(self, spec: QueueSpec) -> Any:
        wanted = pb.Subscription(
            name=subscription_path(self._project, spec.subscription),
            topic=topic_path(self._project, spec.topic),
            ack_deadline_seconds=lease_seconds(spec.ack_deadline_seconds),
            filter=spec.filter,
            enable_message_ordering=spec.enable_message_ordering,
            enable_exactly_once_delivery=spec.enable_exactly_once_delivery,
            labels={**self._labels, **spec.labels},
        )
        wanted.message_retention_duration.seconds = spec.message_retention_seconds
        wanted.expiration_policy.SetInParent()  # set without ttl: never expires
        if spec.expiration_seconds:
            wanted.expiration_policy.ttl.seconds = spec.expiration_seconds
        if spec.dead_letter_topic and spec.max_delivery_attempts:
            policy = wanted.dead_letter_policy
            policy.dead_letter_topic = topic_path(self._project, spec.dead_letter_topic)
            policy.max_delivery_attempts = spec.max_delivery_attempts
        return wanted

    def _wanted_dead_letter(self, spec: QueueSpec) -> Any:
        name = spec.dead_letter_topic.rsplit("/", 1)[-1]
        wanted = pb.Subscription(
            name=subscription_path(self._project, name),
            topic=topic_path(self._project, spec.dead_letter_topic),
            ack_deadline_seconds=60,
            labels={**self._labels, **spec.labels},
        )
        wanted.message_retention_duration.seconds = spec.dead_letter_retention_seconds
        wanted.expiration_policy.SetInParent()
        return wanted

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


def _report_drift(wanted: Any, existing: Any, *, is_emulated: bool) -> None:
    """Warn of settings that differ; raise for those that can never be changed."""
    fixed = [
        f"{name} is {getattr(existing, name)!r}, wanted {getattr(wanted, name)!r}"
        for name in ("topic", "enable_message_ordering")
        if getattr(existing, name) != getattr(wanted, name)
    ]
    if fixed:
        raise SubscriptionMismatch(
            f"{wanted.name} exists and can't be changed: {'; '.join(fixed)}. "
            "Delete it (its backlog goes too) or give the handler another subscription="
        )
    drift = [
        _difference(name, getattr(existing, name), getattr(wanted, name))
        for name in _CHANGEABLE
        if getattr(existing, name) != getattr(wanted, name)
    ]
    is_cut = wanted.message_retention_duration.seconds > _EMULATOR_RETENTION_SECONDS
    if is_emulated and is_cut:  # as it was when the subscription was made; see _create
        drift = [each for each in drift if not each.startswith("message_retention_duration ")]
    _warn_of_drift("Subscription", wanted.name, drift + _label_drift(wanted, existing))


def _report_topic_drift(wanted: Any, existing: Any) -> None:
    policies = (wanted.message_storage_policy, existing.message_storage_policy)
    asked, there = (sorted(policy.allowed_persistence_regions) for policy in policies)
    regions = [_difference("message_storage_regions", there, asked)] if asked != there else []
    if not asked:  # then it is the service's default, or the organization's policy
        regions = []
    _warn_of_drift("Topic", wanted.name, regions + _label_drift(wanted, existing))


def _label_drift(wanted: Any, existing: Any) -> list[str]:
    return [
        _difference(f"label {name}", existing.labels.get(name, ""), value)
        for name, value in sorted(wanted.labels.items())
        if existing.labels.get(name, "") != value
    ]


def _difference(name: str, existing: Any, wanted: Any) -> str:
    return f"{name} is {_short(existing)}, wanted {_short(wanted)}"


def _warn_of_drift(kind: str, path: str, drift: list[str]) -> None:
    if drift:
        logger.warning(
            "%s %s differs from what its queue asks for and is left as it is: %s",
            kind,
            path,
            "; ".join(drift),
            extra={"action": f"{kind.lower()}_drift", kind.lower(): path, "drift": drift},
        )


def _short(value: Any) -> str:
    """Return a setting's value on one line."""
    return " ".join(str(value).split()) or "unset"
