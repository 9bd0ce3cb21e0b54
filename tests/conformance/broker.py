"""A Pub/Sub server under test: raw requests over one channel, and what the server can do.

Unlike Google's high-level client it adds nothing: no leases renewed, no batches, no retries.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.iam.v1 import iam_policy_pb2, policy_pb2  # type: ignore[import-untyped]  # no stubs
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as t
from google.pubsub_v1.types import schema as s

from tests.support.waiting import PATIENCE, wait_until

#: Raw protobuf messages have no stubs.
Proto = Any

#: A lease that no machine is slow enough to outlast, in tests that count messages.
LONG_LEASE_SECONDS = 600


@dataclass(frozen=True)
class Features:
    """What a server does as the service's documentation says. All False: see docs/emulator.md."""

    name: str
    filters: bool = False
    flow_control: bool = False
    #: Bounds of ack deadlines and attributes are checked.
    limits: bool = False
    #: Expiration 31 days by default, retention of up to 31 days.
    defaults: bool = False
    #: The first redelivery waits for the back-off as well.
    backoff_of_first: bool = False
    #: A nack repeats the later messages of its ordering key, acknowledged ones too.
    ordered_redelivery: bool = False
    #: A subscription created later sees retained messages after a seek only.
    topic_retention: bool = False
    #: A stream gets what follows of its keys before it has acknowledged what it has.
    ordered_affinity: bool = False
    #: Ack ids that were given out before a seek acknowledge nothing after it.
    seek_voids_ack_ids: bool = False
    detach: bool = False
    #: Responses stay below gRPC's default limit of 4 MiB.
    bounded_responses: bool = False
    iam: bool = False
    update_labels: bool = False
    #: Refuses what it does not support with UNIMPLEMENTED.
    refuses_unsupported: bool = False
    #: A schema's new revision must be compatible with the one before.
    schema_compatibility: bool = False
    #: Any bytes can be asked for; over REST, names and methods are parts of a URL.
    raw: bool = True
    #: Pushes to this machine (the service can't).
    local_push: bool = True
    #: What only our server promises.
    is_ours: bool = False
    #: The project is somebody's: what a test creates is deleted at its end.
    is_shared: bool = False


GOOGLE = Features("google")
OURS = Features(
    "convotic",
    filters=True,
    flow_control=True,
    limits=True,
    defaults=True,
    backoff_of_first=True,
    ordered_redelivery=True,
    topic_retention=True,
    ordered_affinity=True,
    seek_voids_ack_ids=True,
    detach=True,
    bounded_responses=True,
    iam=True,
    update_labels=True,
    refuses_unsupported=True,
    schema_compatibility=True,
    is_ours=True,
)

_METHODS: Mapping[str, tuple[str, Any, Any]] = {
    "CreateTopic": ("Publisher", t.Topic.pb(), t.Topic.pb()),
    "GetTopic": ("Publisher", t.GetTopicRequest.pb(), t.Topic.pb()),
    "UpdateTopic": ("Publisher", t.UpdateTopicRequest.pb(), t.Topic.pb()),
    "ListTopics": ("Publisher", t.ListTopicsRequest.pb(), t.ListTopicsResponse.pb()),
    "ListTopicSubscriptions": (
        "Publisher",
        t.ListTopicSubscriptionsRequest.pb(),
        t.ListTopicSubscriptionsResponse.pb(),
    ),
    "DeleteTopic": ("Publisher", t.DeleteTopicRequest.pb(), empty_pb2.Empty),
    "DetachSubscription": (
        "Publisher",
        t.DetachSubscriptionRequest.pb(),
        t.DetachSubscriptionResponse.pb(),
    ),
    "Publish": ("Publisher", t.PublishRequest.pb(), t.PublishResponse.pb()),
    "CreateSubscription": ("Subscriber", t.Subscription.pb(), t.Subscription.pb()),
    "GetSubscription": ("Subscriber", t.GetSubscriptionRequest.pb(), t.Subscription.pb()),
    "UpdateSubscription": ("Subscriber", t.UpdateSubscriptionRequest.pb(), t.Subscription.pb()),
    "ListSubscriptions": (
        "Subscriber",
        t.ListSubscriptionsRequest.pb(),
        t.ListSubscriptionsResponse.pb(),
    ),
    "DeleteSubscription": ("Subscriber", t.DeleteSubscriptionRequest.pb(), empty_pb2.Empty),
    "ModifyPushConfig": ("Subscriber", t.ModifyPushConfigRequest.pb(), empty_pb2.Empty),
    "Pull": ("Subscriber", t.PullRequest.pb(), t.PullResponse.pb()),
    "Acknowledge": ("Subscriber", t.AcknowledgeRequest.pb(), empty_pb2.Empty),
    "ModifyAckDeadline": ("Subscriber", t.ModifyAckDeadlineRequest.pb(), empty_pb2.Empty),
    "CreateSchema": ("SchemaService", s.CreateSchemaRequest.pb(), s.Schema.pb()),
    "GetSchema": ("SchemaService", s.GetSchemaRequest.pb(), s.Schema.pb()),
    "ListSchemas": ("SchemaService", s.ListSchemasRequest.pb(), s.ListSchemasResponse.pb()),
    "ListSchemaRevisions": (
        "SchemaService",
        s.ListSchemaRevisionsRequest.pb(),
        s.ListSchemaRevisionsResponse.pb(),
    ),
    "CommitSchema": ("SchemaService", s.CommitSchemaRequest.pb(), s.Schema.pb()),
    "RollbackSchema": ("SchemaService", s.RollbackSchemaRequest.pb(), s.Schema.pb()),
    "DeleteSchemaRevision": ("SchemaService", s.DeleteSchemaRevisionRequest.pb(), s.Schema.pb()),
    "DeleteSchema": ("SchemaService", s.DeleteSchemaRequest.pb(), empty_pb2.Empty),
    "ValidateSchema": (
        "SchemaService",
        s.ValidateSchemaRequest.pb(),
        s.ValidateSchemaResponse.pb(),
    ),
    "ValidateMessage": (
        "SchemaService",
        s.ValidateMessageRequest.pb(),
        s.ValidateMessageResponse.pb(),
    ),
    "Seek": ("Subscriber", t.SeekRequest.pb(), t.SeekResponse.pb()),
    "CreateSnapshot": ("Subscriber", t.CreateSnapshotRequest.pb(), t.Snapshot.pb()),
    "GetSnapshot": ("Subscriber", t.GetSnapshotRequest.pb(), t.Snapshot.pb()),
    "ListSnapshots": ("Subscriber", t.ListSnapshotsRequest.pb(), t.ListSnapshotsResponse.pb()),
    "ListTopicSnapshots": (
        "Publisher",
        t.ListTopicSnapshotsRequest.pb(),
        t.ListTopicSnapshotsResponse.pb(),
    ),
    "UpdateSnapshot": ("Subscriber", t.UpdateSnapshotRequest.pb(), t.Snapshot.pb()),
    "DeleteSnapshot": ("Subscriber", t.DeleteSnapshotRequest.pb(), empty_pb2.Empty),
}


#: By what a resource is deleted, and the field that names it.
_DELETION = {
    "CreateTopic": ("DeleteTopic", "topic"),
    "CreateSubscription": ("DeleteSubscription", "subscription"),
    "CreateSnapshot": ("DeleteSnapshot", "snapshot"),
    "CreateSchema": ("DeleteSchema", "name"),
}


@dataclass
class Broker:
    """One server and a project of the test's own on it."""

    features: Features
    channel: grpc.Channel
    project: str
    streams: list[Stream] = field(default_factory=list)
    created: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def needs(self, feature: str, otherwise: str) -> None:
        """End the test as an expected failure where the server lacks a feature."""
        if not getattr(self.features, feature):
            pytest.xfail(f"{self.features.name}: {otherwise}")

    def call(self, method: str, *, timeout: float = PATIENCE, **fields: Any) -> Proto:
        """Call a method with a request of these fields."""
        service, request, response = _METHODS[method]
        function = self.channel.unary_unary(
            f"/google.pubsub.v1.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = function(request(**fields), timeout=timeout)
        if method in _DELETION:
            deletion, name = _DELETION[method]
            self.created.append((deletion, {name: answer.name}))
        return answer

    def iam(self, method: str, request: Proto) -> Proto:
        """Call a method of google.iam.v1.IAMPolicy."""
        response: Any = policy_pb2.Policy
        if method == "TestIamPermissions":
            response = iam_policy_pb2.TestIamPermissionsResponse
        function = self.channel.unary_unary(
            f"/google.iam.v1.IAMPolicy/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return function(request, timeout=PATIENCE)

    def topic(self, name: str = "", **fields: Any) -> str:
        """Create a topic; return its full name."""
        full = f"projects/{self.project}/topics/{name or unique('topic')}"
        self.call("CreateTopic", name=full, **fields)
        return full

    def subscription(self, topic: str, name: str = "", **fields: Any) -> str:
        """Create a subscription; return its full name."""
        full = f"projects/{self.project}/subscriptions/{name or unique('sub')}"
        self.call("CreateSubscription", name=full, topic=topic, **fields)
        return full

    def publish(self, topic: str, *bodies: bytes, **fields: Any) -> list[str]:
        """Publish messages with these fields; return their ids."""
        messages = [t.PubsubMessage.pb()(data=body, **fields) for body in bodies]
        return list(self.call("Publish", topic=topic, messages=messages).message_ids)

    def pull(self, subscription: str, *, limit: int = 100, wait: float = PATIENCE) -> Any:
        """Pull once: what there is, as soon as there is something. Empty when nothing came."""
        response = self.call("Pull", subscription=subscription, max_messages=limit, timeout=wait)
        return list(response.received_messages)

    def pull_now(self, subscription: str, *, limit: int = 100) -> Any:
        """Return what is available at this moment."""
        response = self.call(
            "Pull", subscription=subscription, max_messages=limit, return_immediately=True
        )
        return list(response.received_messages)

    def pull_all(self, subscription: str, count: int) -> Any:
        """Pull until there are ``count`` messages."""
        received: list[Any] = []

        def has_enough() -> bool:
            received.extend(self.pull_now(subscription))
            return len(received) >= count

        wait_until(has_enough, what=f"{count} messages of {subscription}")
        return received

    def acknowledge(self, subscription: str, received: Sequence[Any]) -> None:
        """Acknowledge received messages."""
        self.call("Acknowledge", subscription=subscription, ack_ids=[m.ack_id for m in received])

    def modify(self, subscription: str, received: Sequence[Any], seconds: int) -> None:
        """Set the deadline of received messages."""
        self.call(
            "ModifyAckDeadline",
            subscription=subscription,
            ack_ids=[m.ack_id for m in received],
            ack_deadline_seconds=seconds,
        )

    def stream(self, subscription: str, **fields: Any) -> Stream:
        """Open a StreamingPull."""
        stream = Stream(self.channel, subscription, fields)
        self.streams.append(stream)
        return stream

    def close(self) -> None:
        """End what is open; leave nothing in a shared project."""
        for stream in self.streams:
            stream.cancel()
        if self.features.is_shared:
            for method, fields in reversed(self.created):
                with contextlib.suppress(grpc.RpcError):  # the test may have deleted it
                    self.call(method, **fields)
        self.channel.close()


class Stream:
    """An open StreamingPull; a thread collects what it receives."""

    def __init__(self, channel: grpc.Channel, subscription: str, fields: dict[str, Any]) -> None:
        self.received: list[Any] = []
        self.responses: list[Any] = []
        self.error: grpc.RpcError | None = None
        self.ended = threading.Event()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        fields.setdefault("stream_ack_deadline_seconds", 10)
        self.send(subscription=subscription, **fields)
        function = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=t.StreamingPullRequest.pb().SerializeToString,
            response_deserializer=t.StreamingPullResponse.pb().FromString,
        )
        self._call: Any = function(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    @property
    def code(self) -> grpc.StatusCode | None:
        """How it ended."""
        return None if not self.ended.is_set() else self._call.code()

    def send(self, **fields: Any) -> None:
        """Send a request."""
        self._requests.put(t.StreamingPullRequest.pb()(**fields))

    def acknowledge(self, received: Sequence[Any]) -> None:
        """Acknowledge over the stream."""
        self.send(ack_ids=[m.ack_id for m in received])

    def modify(self, received: Sequence[Any], seconds: int) -> None:
        """Set deadlines over the stream."""
        self.send(
            modify_deadline_ack_ids=[m.ack_id for m in received],
            modify_deadline_seconds=[seconds] * len(received),
        )

    def half_close(self) -> None:
        """Send no more requests."""
        self._requests.put(None)

    def cancel(self) -> None:
        """End it from the client's side."""
        self._call.cancel()
        self._requests.put(None)
        self._thread.join(timeout=PATIENCE)

    def _collect(self) -> None:
        try:
            for response in self._call:
                self.responses.append(response)
                self.received.extend(response.received_messages)
        except grpc.RpcError as error:
            self.error = error
        finally:
            self.ended.set()


def unique(prefix: str) -> str:
    """Return a legal resource id that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def bodies(received: Iterator[Any] | Sequence[Any]) -> list[bytes]:
    """Return the data of received messages."""
    return [m.message.data for m in received]
