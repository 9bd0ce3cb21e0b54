"""gRPC: the methods the transport calls on raw protobuf messages, and error translation.

Calls go through ``grpc.aio`` on our own channels (``channels.py``). Google's client isn't used: its
subscriber owns threads and leases, and it wraps each message in proto-plus (several times the cost
of the raw type).

Everything but :func:`translate` belongs to the I/O thread.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2, struct_pb2

from convotic_protos import pubsub as pb
from convotic_protos import rpc
from convotic_pubsub.errors import (
    AccessDenied,
    BrokerUnavailable,
    PublishError,
    PubsubTransportError,
    SubscriptionNotFound,
    TopicNotFound,
)
from convotic_pubsub.names import routing_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Sequence

__all__ = ["TRANSIENT", "Rpc", "all_ended", "is_transient", "pb", "refused_ack_ids", "translate"]

_Result = TypeVar("_Result")

#: Codes after which the same call may succeed; the same set as Google's subscriber uses.
TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)

#: The errors that have a status: of grpc.aio's calls, and of blocking ones.
_ANSWERED: Final = (grpc.aio.AioRpcError, grpc.Call)


async def all_ended(calls: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Await calls at the same time; raise the first of their errors once all have ended.

    ``asyncio.gather`` raises while the others still run: what follows would run beside them.
    """
    ended = await asyncio.gather(*calls, return_exceptions=True)
    results: list[_Result] = []
    for each in ended:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


class Rpc:
    """The unary and streaming methods of one channel. Call from the I/O thread only."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._methods: dict[str, Any] = {}

    def _unary(self, service: str, method: str, request: Any, response: Any) -> Any:
        path = f"/google.pubsub.v1.{service}/{method}"
        call = self._methods.get(path)
        if call is None:
            call = self.channel.unary_unary(
                path,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            self._methods[path] = call
        return call

    def publish(self, request: Any, timeout: float) -> Any:
        """Publish a batch to one topic; the answer holds the message ids in order."""
        call = self._unary("Publisher", "Publish", pb.PublishRequest, pb.PublishResponse)
        return call(request, timeout=timeout, metadata=[routing_header("topic", request.topic)])

    def create_topic(self, topic: Any, timeout: float = 30) -> Any:
        """Create a topic."""
        call = self._unary("Publisher", "CreateTopic", pb.Topic, pb.Topic)
        return call(topic, timeout=timeout, metadata=[routing_header("name", topic.name)])

    def get_topic(self, path: str, timeout: float = 30) -> Any:
        """Get a topic by its full name."""
        call = self._unary("Publisher", "GetTopic", pb.GetTopicRequest, pb.Topic)
        request = pb.GetTopicRequest(topic=path)
        return call(request, timeout=timeout, metadata=[routing_header("topic", path)])

    def delete_topic(self, path: str, timeout: float = 30) -> Any:
        """Delete a topic by its full name."""
        call = self._unary("Publisher", "DeleteTopic", pb.DeleteTopicRequest, empty_pb2.Empty)
        request = pb.DeleteTopicRequest(topic=path)
        return call(request, timeout=timeout, metadata=[routing_header("topic", path)])

    def list_topics(self, project: str, timeout: float = 10) -> Any:
        """List at most one topic: a cheap call that shows whether a server answers, and which."""
        call = self._unary("Publisher", "ListTopics", pb.ListTopicsRequest, pb.ListTopicsResponse)
        request = pb.ListTopicsRequest(project=f"projects/{project}", page_size=1)
        return call(request, timeout=timeout, metadata=[routing_header("project", request.project)])

    def list_topic_subscriptions(self, path: str, page_token: str = "", timeout: float = 20) -> Any:
        """List the subscriptions of a topic, a page at a time."""
        call = self._unary(
            "Publisher",
            "ListTopicSubscriptions",
            pb.ListTopicSubscriptionsRequest,
            pb.ListTopicSubscriptionsResponse,
        )
        request = pb.ListTopicSubscriptionsRequest(topic=path, page_token=page_token)
        return call(request, timeout=timeout, metadata=[routing_header("topic", path)])

    def create_subscription(self, subscription: Any, timeout: float = 30) -> Any:
        """Create a subscription."""
        call = self._unary("Subscriber", "CreateSubscription", pb.Subscription, pb.Subscription)
        metadata = [routing_header("name", subscription.name)]
        return call(subscription, timeout=timeout, metadata=metadata)

    def get_subscription(self, path: str, timeout: float = 30) -> Any:
        """Get a subscription by its full name."""
        call = self._unary(
            "Subscriber", "GetSubscription", pb.GetSubscriptionRequest, pb.Subscription
        )
        request = pb.GetSubscriptionRequest(subscription=path)
        return call(request, timeout=timeout, metadata=[routing_header("subscription", path)])

    def delete_subscription(self, path: str, timeout: float = 30) -> Any:
        """Delete a subscription by its full name."""
        call = self._unary(
            "Subscriber", "DeleteSubscription", pb.DeleteSubscriptionRequest, empty_pb2.Empty
        )
        request = pb.DeleteSubscriptionRequest(subscription=path)
        return call(request, timeout=timeout, metadata=[routing_header("subscription", path)])

    def pull(self, request: Any, timeout: float) -> Any:
        """Pull up to ``max_messages``; the server answers empty shortly before ``timeout``."""
        call = self._unary("Subscriber", "Pull", pb.PullRequest, pb.PullResponse)
        metadata = [routing_header("subscription", request.subscription)]
        return call(request, timeout=timeout, metadata=metadata)

    def acknowledge(self, path: str, ack_ids: Sequence[str], timeout: float = 10) -> Any:
        """Acknowledge at most 1,000 ids (and 512 KiB)."""
        call = self._unary("Subscriber", "Acknowledge", pb.AcknowledgeRequest, empty_pb2.Empty)
        request = pb.AcknowledgeRequest(subscription=path, ack_ids=ack_ids)
        return call(request, timeout=timeout, metadata=[routing_header("subscription", path)])

    def modify_ack_deadline(
        self, path: str, ack_ids: Sequence[str], seconds: int, timeout: float = 10
    ) -> Any:
        """Let the leases of at most 1,000 ids end in ``seconds`` (0..600; 0 returns them now)."""
        call = self._unary(
            "Subscriber", "ModifyAckDeadline", pb.ModifyAckDeadlineRequest, empty_pb2.Empty
        )
        request = pb.ModifyAckDeadlineRequest(
            subscription=path, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        return call(request, timeout=timeout, metadata=[routing_header("subscription", path)])

    def count_messages(self, paths: Sequence[str], timeout: float = 10) -> Any:
        """Count the messages of subscriptions; only our emulator knows this method."""
        request = struct_pb2.ListValue()
        request.extend(paths)
        call: Any = self.channel.unary_unary(
            "/convotic.emulator.v1.Status/CountMessages",
            request_serializer=struct_pb2.ListValue.SerializeToString,
            response_deserializer=struct_pb2.Struct.FromString,
        )
        return call(request, timeout=timeout)

    def streaming_pull(self, path: str) -> Any:
        """Open a StreamingPull; the caller writes the first request."""
        call: Any = self.channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=pb.StreamingPullRequest.SerializeToString,
            response_deserializer=pb.StreamingPullResponse.FromString,
        )
        return call(metadata=[routing_header("subscription", path)])


def is_transient(error: BaseException) -> bool:
    """Say whether the same call may succeed later by itself."""
    return isinstance(error, _ANSWERED) and error.code() in TRANSIENT


def refused_ack_ids(error: grpc.aio.AioRpcError) -> dict[str, bool]:
    """Return the ack ids that exactly-once delivery refused; True for those to be sent again.

    All others of the request took effect. Empty where the answer names none.
    https://cloud.google.com/pubsub/docs/exactly-once-delivery#handle_failures
    """
    refused: dict[str, bool] = {}
    for info in _error_infos(error):
        for ack_id, failure in info.metadata.items():
            if failure.startswith(("PERMANENT_FAILURE_", "TRANSIENT_FAILURE_")):
                refused[ack_id] = failure.startswith("TRANSIENT_FAILURE_")
    return refused


def _error_infos(error: Any) -> Iterator[Any]:
    """Yield the machine-readable reasons of an answer."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in rpc.Status.FromString(value).details:
                info = rpc.ErrorInfo()
                if detail.Unpack(info):
                    yield info


_ACCESS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
#: What gRPC says where credentials can't be renewed: with UNAVAILABLE, so such a call is retried.
_NO_TOKEN = "Getting metadata from plugin failed"  # noqa: S105  no secret
_ADDRESS = re.compile(r"ipv[46]:\S+")
_PERMISSION = re.compile(r"\bpubsub\.[A-Za-z]+\.[A-Za-z]+\b")
#: Of the permissions that a transport needs, the predefined role with the fewest others; see
#: https://cloud.google.com/pubsub/docs/access-control.
_ROLES: Final = {
    "pubsub.topics.publish": "roles/pubsub.publisher",
    "pubsub.topics.attachSubscription": "roles/pubsub.subscriber",
    "pubsub.subscriptions.consume": "roles/pubsub.subscriber",
    "pubsub.snapshots.seek": "roles/pubsub.subscriber",
}


def translate(error: grpc.RpcError | Exception, resource: str) -> PubsubTransportError:
    """Return our error for one of gRPC's, naming ``resource`` and what to do."""
    if isinstance(error, PubsubTransportError):
        return error
    if not isinstance(error, _ANSWERED):
        return BrokerUnavailable(f"{resource}: {type(error).__name__}: {error}")
    code, details = error.code(), _ADDRESS.sub("the server", error.details() or "")
    if code is grpc.StatusCode.NOT_FOUND:
        missing = SubscriptionNotFound if "/subscriptions/" in resource else TopicNotFound
        return missing(f"{resource} does not exist: create it, or let provision=create do so")
    if code in _ACCESS or _NO_TOKEN in details:
        return AccessDenied(f"{resource}: {details or code.name}: {_remedy(error, details)}")
    if code in TRANSIENT:
        return BrokerUnavailable(f"{resource}: Pub/Sub is unavailable ({code.name}: {details})")
    return PublishError(f"{resource}: refused ({code.name}: {details})")


def _remedy(error: Any, details: str) -> str:
    """Say what to do where access is denied; names what is missing if the answer does."""
    named = _PERMISSION.search(details)
    permission = named[0] if named else ""
    for info in _error_infos(error):
        permission = info.metadata.get("permission", permission)
    if not permission:
        return (
            "check the credentials and that they have roles/pubsub.publisher and "
            "roles/pubsub.subscriber (provision=verify needs roles/pubsub.viewer too, "
            "provision=create roles/pubsub.editor)"
        )
    role = _ROLES.get(permission, "roles/pubsub.editor")
    if permission.endswith((".get", ".list")):
        role = "roles/pubsub.viewer"
    elif permission.endswith("IamPolicy"):
        role = "roles/pubsub.admin"
    return f"the credentials lack {permission}, which {role} gives"
