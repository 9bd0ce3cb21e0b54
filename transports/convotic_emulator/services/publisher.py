"""The service google.pubsub.v1.Publisher: topics and publishing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from convotic_emulator.engine.names import check_name, check_project
from convotic_emulator.engine.plain import plain_bodies
from convotic_emulator.engine.registry import in_project
from convotic_emulator.services.changes import TOPIC_FIELDS, changed_copy
from convotic_emulator.services.checks import check_messages, complete_topic
from convotic_emulator.services.paging import page_of
from convotic_emulator.services.rpc import unary_call, unary_methods
from convotic_emulator.services.schemas import apply_schema, check_schema_settings
from convotic_protos import pubsub as t

if TYPE_CHECKING:
    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Call, Method

__all__ = ["PublisherService"]


class PublisherService:
    """Methods of google.pubsub.v1.Publisher."""

    NAME = "google.pubsub.v1.Publisher"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def methods(self) -> dict[str, Method]:
        """Return methods by name."""
        table: dict[str, tuple[Any, Any]] = {
            "CreateTopic": (self.create_topic, t.Topic),
            "GetTopic": (self.get_topic, t.GetTopicRequest),
            "ListTopics": (self.list_topics, t.ListTopicsRequest),
            "ListTopicSubscriptions": (
                self.list_topic_subscriptions,
                t.ListTopicSubscriptionsRequest,
            ),
            "ListTopicSnapshots": (self.list_topic_snapshots, t.ListTopicSnapshotsRequest),
            "UpdateTopic": (self.update_topic, t.UpdateTopicRequest),
            "DeleteTopic": (self.delete_topic, t.DeleteTopicRequest),
            "DetachSubscription": (self.detach_subscription, t.DetachSubscriptionRequest),
        }
        methods = unary_methods(self._engine, table)
        methods["Publish"] = unary_call(self._engine, self.publish, t.PublishRequest)
        return methods

    async def publish(self, request: Proto, call: Call) -> Proto:
        """Store messages for all subscriptions of the topic."""
        check_name(request.topic, "topics")
        topic = self._engine.registry.topic(request.topic)
        plain = plain_bodies(request)
        check_messages(request.messages, plain)
        self._engine.commits.check_room()
        if topic.has_schema:
            apply_schema(self._engine, topic, request.messages)
            plain = None  # they have attributes now
        ids = self._engine.broker.publish(topic, request.messages, plain)
        self._engine.commits.publishers.add(call.peer)
        return _PUBLISHED(message_ids=ids)

    async def create_topic(self, request: Proto) -> Proto:
        """Create a topic."""
        complete_topic(request)
        check_schema_settings(self._engine, request)
        self._engine.registry.create("topic", request)
        return self._engine.registry.topic(request.name).proto

    async def get_topic(self, request: Proto) -> Proto:
        """Return a topic."""
        check_name(request.topic, "topics")
        return self._engine.registry.topic(request.topic).proto

    async def list_topics(self, request: Proto) -> Proto:
        """Return a page of a project's topics."""
        topics = in_project(self._engine.registry.topics.values(), check_project(request.project))
        page, token = page_of(topics, lambda topic: topic.row.name, request)
        return _TOPICS(topics=[topic.proto for topic in page], next_page_token=token)

    async def list_topic_subscriptions(self, request: Proto) -> Proto:
        """Return a page of the names of a topic's subscriptions."""
        topic = self._engine.registry.topic(check_name(request.topic, "topics"))
        names = sorted(topic.subscriptions)
        page, token = page_of(names, str, request)
        return _TOPIC_SUBSCRIPTIONS(subscriptions=page, next_page_token=token)

    async def list_topic_snapshots(self, request: Proto) -> Proto:
        """Return a page of the names of a topic's snapshots."""
        topic = self._engine.registry.topic(check_name(request.topic, "topics"))
        names = sorted(topic.snapshots)
        page, token = page_of(names, str, request)
        return _TOPIC_SNAPSHOTS(snapshots=page, next_page_token=token)

    async def update_topic(self, request: Proto) -> Proto:
        """Change the fields of a topic that the mask names."""
        topic = self._engine.registry.topic(check_name(request.topic.name, "topics"))
        changed = changed_copy(topic.proto, request.topic, request.update_mask, TOPIC_FIELDS)
        complete_topic(changed)
        if changed.schema_settings != topic.proto.schema_settings:
            check_schema_settings(self._engine, changed)
        topic.proto = changed
        self._engine.registry.save(topic)
        return changed

    async def delete_topic(self, request: Proto) -> Proto:
        """Delete a topic; its subscriptions stay."""
        check_name(request.topic, "topics")
        self._engine.registry.delete_topic(request.topic)
        return empty_pb2.Empty()

    async def detach_subscription(self, request: Proto) -> Proto:
        """Detach a subscription from its topic and drop its messages."""
        check_name(request.subscription, "subscriptions")
        self._engine.detach_subscription(request.subscription)
        return _DETACHED()


_PUBLISHED = t.PublishResponse
_TOPICS = t.ListTopicsResponse
_TOPIC_SUBSCRIPTIONS = t.ListTopicSubscriptionsResponse
_TOPIC_SNAPSHOTS = t.ListTopicSnapshotsResponse
_DETACHED = t.DetachSubscriptionResponse
