"""Administration: read, create, change and delete what exists on the server, and who may use it.

For tools that people run, not for workers: those go through ``provisioning.py``, which only ever
creates. Each method is one call of the API, or its pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from convotic_protos import iam
from convotic_pubsub.client.provisioning import create_subscription
from convotic_pubsub.client.resource_messages import (
    read_subscription,
    read_topic,
    subscription_message,
    topic_message,
)
from convotic_pubsub.client.rpc import pb, translate
from convotic_pubsub.names import routing_header

if TYPE_CHECKING:
    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.client.resources import Call
    from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

__all__ = ["Admin", "Binding"]

_TIMEOUT_SECONDS: Final = 30.0
#: A project has at most 10,000 topics and as many subscriptions.
_LIST_SECONDS: Final = 120.0
_PAGE_SIZE: Final = 1000
#: How often a policy is read and written again that somebody else has changed in between.
_POLICY_ATTEMPTS: Final = 10

#: Which field of the API's messages a setting is a part of, where their names differ.
_FIELDS: Final = {
    "dead_letter_topic": "dead_letter_policy",
    "max_delivery_attempts": "dead_letter_policy",
    "retry_backoff_seconds": "retry_policy",
    "message_retention_seconds": "message_retention_duration",
    "expiration_seconds": "expiration_policy",
    "message_storage_regions": "message_storage_policy",
}


@dataclass(frozen=True, slots=True)
class Binding:
    """One role of an IAM policy and its members."""

    role: str
    members: frozenset[str]
    #: Whether it holds only under a condition.
    is_conditional: bool = False


class Admin:
    """What may be asked of a server beyond sending and receiving.

    Thread-safe; every method blocks for a round trip or more, and must not be called on the I/O
    thread. Names are full paths.

    All raise :class:`AccessDenied`, naming the resource, where a permission is missing, and
    :class:`BrokerUnavailable` when the server does not answer.
    """

    def __init__(self, call: Call, project: str, broker: Broker) -> None:
        self._call = call
        self._project = f"projects/{project}"
        self._broker = broker

    @property
    def is_emulated(self) -> bool:
        """Whether the server is an emulator."""
        return self._broker.is_emulated

    # -- what exists ------------------------------------------------------------------------------

    def list_topics(self) -> list[TopicSettings]:
        """Return all topics of the project."""
        request = pb.ListTopicsRequest(project=self._project, page_size=_PAGE_SIZE)
        pages = self._pages("Publisher/ListTopics", request, pb.ListTopicsResponse)
        return [read_topic(each) for page in pages for each in page.topics]

    def list_subscriptions(self) -> list[SubscriptionSettings]:
        """Return all subscriptions of the project."""
        request = pb.ListSubscriptionsRequest(project=self._project, page_size=_PAGE_SIZE)
        pages = self._pages("Subscriber/ListSubscriptions", request, pb.ListSubscriptionsResponse)
        return [read_subscription(each) for page in pages for each in page.subscriptions]

    def get_topic(self, path: str) -> TopicSettings | None:
        """Return a topic, None if it does not exist."""
        found = self._ask_if_there(
            "Publisher/GetTopic", pb.GetTopicRequest(topic=path), pb.Topic, "topic", path
        )
        return None if found is None else read_topic(found)

    def get_subscription(self, path: str) -> SubscriptionSettings | None:
        """Return a subscription, None if it does not exist."""
        request = pb.GetSubscriptionRequest(subscription=path)
        found = self._ask_if_there(
            "Subscriber/GetSubscription", request, pb.Subscription, "subscription", path
        )
        return None if found is None else read_subscription(found)

    # -- changes ----------------------------------------------------------------------------------

    def create_topic(self, topic: TopicSettings) -> bool:
        """Create a topic; False: it exists."""
        return self._created(
            lambda: self._send(
                "Publisher/CreateTopic", topic_message(topic), pb.Topic, "name", topic.name
            ),
            topic.name,
        )

    def create_subscription(self, subscription: SubscriptionSettings) -> bool:
        """Create a subscription; False: it exists, perhaps with other settings."""
        return self._created(
            lambda: create_subscription(self._broker, subscription), subscription.name
        )

    def update_topic(self, topic: TopicSettings, settings: Iterable[str]) -> None:
        """Change what ``settings`` names; labels are added to those that exist."""
        current = self.get_topic(topic.name)
        labels = {**(current.labels if current else {}), **topic.labels}
        request = pb.UpdateTopicRequest(topic=topic_message(replace(topic, labels=labels)))
        request.update_mask.paths.extend(_mask(settings))
        self._run(
            self._send("Publisher/UpdateTopic", request, pb.Topic, "topic.name", topic.name),
            topic.name,
        )

    def update_subscription(
        self, subscription: SubscriptionSettings, settings: Iterable[str]
    ) -> None:
        """Change what ``settings`` names; labels are added to those that exist."""
        current = self.get_subscription(subscription.name)
        labels = {**(current.labels if current else {}), **subscription.labels}
        self._update_subscription(replace(subscription, labels=labels), settings)

    def set_labels(self, subscription: SubscriptionSettings, labels: Mapping[str, str]) -> None:
        """Replace a subscription's labels."""
        self._update_subscription(replace(subscription, labels=labels), ["labels"])

    def _update_subscription(
        self, subscription: SubscriptionSettings, settings: Iterable[str]
    ) -> None:
        request = pb.UpdateSubscriptionRequest(subscription=subscription_message(subscription))
        request.update_mask.paths.extend(_mask(settings))
        self._run(
            self._send(
                "Subscriber/UpdateSubscription",
                request,
                pb.Subscription,
                "subscription.name",
                subscription.name,
            ),
            subscription.name,
        )

    def delete_topic(self, path: str) -> None:
        """Delete a topic; a missing one is no error. Its subscriptions stay, without a topic."""
        request = pb.DeleteTopicRequest(topic=path)
        self._ask_if_there("Publisher/DeleteTopic", request, empty_pb2.Empty, "topic", path)

    def delete_subscription(self, path: str) -> None:
        """Delete a subscription with its messages; a missing one is no error."""
        request = pb.DeleteSubscriptionRequest(subscription=path)
        self._ask_if_there(
            "Subscriber/DeleteSubscription", request, empty_pb2.Empty, "subscription", path
        )

    # -- snapshots --------------------------------------------------------------------------------

    def create_snapshot(self, path: str, subscription: str, labels: Mapping[str, str]) -> bool:
        """Keep what a subscription has unacknowledged and all that is published from now on.

        False: a snapshot of this name exists.
        """
        request = pb.CreateSnapshotRequest(
            name=path, subscription=subscription, labels=dict(labels)
        )
        return self._created(
            lambda: self._send("Subscriber/CreateSnapshot", request, pb.Snapshot, "name", path),
            subscription,
        )

    def get_snapshot_labels(self, path: str) -> Mapping[str, str] | None:
        """Return the labels of a snapshot, None if it does not exist."""
        request = pb.GetSnapshotRequest(snapshot=path)
        found = self._ask_if_there("Subscriber/GetSnapshot", request, pb.Snapshot, "snapshot", path)
        return None if found is None else dict(found.labels)

    def delete_snapshot(self, path: str) -> None:
        """Delete a snapshot; a missing one is no error."""
        request = pb.DeleteSnapshotRequest(snapshot=path)
        self._ask_if_there("Subscriber/DeleteSnapshot", request, empty_pb2.Empty, "snapshot", path)

    def seek(self, subscription: str, snapshot: str) -> None:
        """Have a subscription deliver what a snapshot keeps, and nothing that it does not."""
        request = pb.SeekRequest(subscription=subscription, snapshot=snapshot)
        self._run(
            self._send("Subscriber/Seek", request, pb.SeekResponse, "subscription", subscription),
            subscription,
        )

    # -- access ----------------------------------------------------------------------------------

    def missing_permissions(self, resource: str, permissions: Collection[str]) -> set[str]:
        """Return which of some permissions these credentials lack on a topic or subscription.

        The service may take some minutes to know of a change. There are none on what does not
        exist. Needs no permission itself.
        """
        request = iam.TestIamPermissionsRequest(resource=resource, permissions=sorted(permissions))
        answer = self._run(
            self._send(
                "TestIamPermissions",
                request,
                iam.TestIamPermissionsResponse,
                "resource",
                resource,
            ),
            resource,
        )
        return set(permissions) - set(answer.permissions)

    def bindings(self, resource: str) -> list[Binding]:
        """Return the bindings on a resource itself; those of its project are not among them."""
        return [
            Binding(each.role, frozenset(each.members), each.HasField("condition"))
            for each in self._policy(resource).bindings
        ]

    def add_binding(self, resource: str, role: str, member: str) -> None:
        """Give somebody a role on a resource; all else of its policy stays."""

        def add(policy: Any) -> None:
            for each in policy.bindings:
                if each.role == role and not each.HasField("condition"):
                    if member not in each.members:
                        each.members.append(member)
                    return
            policy.bindings.add(role=role, members=[member])

        self._change_policy(resource, add)

    def copy_policy(self, source: str, target: str) -> None:
        """Give a new resource the bindings of another."""
        kept = self._policy(source)

        def copy(current: Any) -> None:
            etag = current.etag
            current.CopyFrom(kept)
            current.etag = etag

        if kept.bindings:
            self._change_policy(target, copy)

    def _policy(self, resource: str) -> Any:
        request = iam.GetIamPolicyRequest(resource=resource)
        request.options.requested_policy_version = 3  # with conditions

        async def ask() -> Any:
            try:
                return await self._send("GetIamPolicy", request, iam.Policy, "resource", resource)
            except grpc.aio.AioRpcError as error:
                if self.is_emulated and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return iam.Policy()  # Google's emulator has no policies, so nobody has lost one
                raise

        return self._run(ask(), resource)

    def _change_policy(self, resource: str, change: Callable[[Any], None]) -> None:
        """Read, change and write a policy, again if somebody else has written it in between."""
        for attempt in range(1, _POLICY_ATTEMPTS + 1):
            policy = self._policy(resource)
            before = policy.SerializeToString(deterministic=True)
            change(policy)
            if policy.SerializeToString(deterministic=True) == before:
                return
            request = iam.SetIamPolicyRequest(resource=resource, policy=policy)
            try:
                self._call(
                    self._send("SetIamPolicy", request, iam.Policy, "resource", resource),
                    _TIMEOUT_SECONDS,
                )
            except grpc.aio.AioRpcError as error:
                changed = (grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION)
                if error.code() not in changed or attempt == _POLICY_ATTEMPTS:
                    raise translate(error, resource) from error
            else:
                return

    # -- calls ------------------------------------------------------------------------------------

    async def _send(
        self, method: str, request: Any, response: Any, field: str, resource: str
    ) -> Any:
        service = "google.pubsub.v1." if "/" in method else "google.iam.v1.IAMPolicy/"
        call: Any = self._broker.rpc.channel.unary_unary(
            f"/{service}{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(
            request, timeout=_TIMEOUT_SECONDS, metadata=[routing_header(field, resource)]
        )

    def _run(self, coroutine: Any, resource: str) -> Any:
        async def translated() -> Any:
            try:
                return await coroutine
            except grpc.aio.AioRpcError as error:
                raise translate(error, resource) from error

        return self._call(translated(), _TIMEOUT_SECONDS * 2)

    def _ask_if_there(
        self, method: str, request: Any, response: Any, field: str, resource: str
    ) -> Any:
        """Return the answer, None where the resource does not exist."""

        async def ask() -> Any:
            try:
                return await self._send(method, request, response, field, resource)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return None
                raise

        return self._run(ask(), resource)

    def _created(self, send: Callable[[], Any], resource: str) -> bool:
        async def create() -> bool:
            try:
                await send()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                    return False
                raise
            return True

        return bool(self._run(create(), resource))

    def _pages(self, method: str, request: Any, response: Any) -> list[Any]:
        async def read() -> list[Any]:
            pages = []
            while True:
                page = await self._send(method, request, response, "project", self._project)
                pages.append(page)
                if not page.next_page_token:
                    return pages
                request.page_token = page.next_page_token

        async def translated() -> list[Any]:
            try:
                return await read()
            except grpc.aio.AioRpcError as error:
                raise translate(error, self._project) from error

        pages: list[Any] = self._call(translated(), _LIST_SECONDS)
        return pages


def _mask(settings: Iterable[str]) -> list[str]:
    """Return the fields of the API's message that some settings are in."""
    names = (setting.partition(".")[0] for setting in settings)
    return sorted({_FIELDS.get(name, name) for name in names})
