"""Topics, subscriptions and snapshots: what exists, in memory and in the store.

Owns creation, lookup, listing, change and deletion. What happens to messages is not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from convotic_emulator.engine.filter import Predicate, parse_filter
from convotic_emulator.engine.names import DELETED_SCHEMA, DELETED_TOPIC
from convotic_emulator.engine.rules import Proto, rules_of
from convotic_emulator.errors import AlreadyExists, NotFound
from convotic_emulator.storage.resources import ResourceRow
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_emulator.engine.clock import Clock
    from convotic_emulator.engine.state import SubscriptionState
    from convotic_emulator.storage.store import Store

__all__ = ["Registry", "Schema", "Snapshot", "Subscription", "Topic"]

TOPIC = pubsub.Topic
SUBSCRIPTION = pubsub.Subscription
SNAPSHOT = pubsub.Snapshot
#: A schema is kept as the list of its revisions, newest first.
REVISIONS = pubsub.ListSchemaRevisionsResponse


class Topic:
    """A topic with the subscriptions and snapshots that receive its messages."""

    def __init__(self, row: ResourceRow) -> None:
        self.row = row
        self.proto: Proto = TOPIC.FromString(row.body)
        self.subscriptions: dict[str, Subscription] = {}
        self.snapshots: dict[str, Snapshot] = {}

    @property
    def retains(self) -> bool:
        """Whether the topic itself keeps messages (topic retention)."""
        return bool(self.proto.HasField("message_retention_duration"))

    @property
    def has_schema(self) -> bool:
        """Whether messages must fit a schema."""
        return bool(self.proto.HasField("schema_settings"))


class Subscription:
    """A subscription with its state machine."""

    def __init__(
        self, row: ResourceRow, create_state: Callable[[Subscription], SubscriptionState]
    ) -> None:
        self.row = row
        self.proto: Proto = SUBSCRIPTION.FromString(row.body)
        self.matches: Predicate | None = parse_filter(self.proto.filter)
        self.state = create_state(self)
        #: When a subscriber last did something. Time that the server was off does not count.
        self.used_us = 0
        self.is_deleted = False
        if self.proto.detached:
            self.state.hold()

    @property
    def is_gone(self) -> bool:
        """Whether its messages can't be delivered any more."""
        return self.is_deleted or bool(self.proto.detached)

    def changed(self) -> None:
        """Bring row and rules in line with ``proto``."""
        self.row.body = self.proto.SerializeToString()
        self.state.rules = rules_of(self.proto)


class Snapshot:
    """A snapshot: a backlog of its own, that grows with the topic."""

    def __init__(self, row: ResourceRow) -> None:
        self.row = row
        self.proto: Proto = SNAPSHOT.FromString(row.body)
        #: Whether its messages are all there.
        self.is_complete = True


class Schema:
    """A schema with its revisions."""

    def __init__(self, row: ResourceRow) -> None:
        self.row = row
        self.proto: Proto = REVISIONS.FromString(row.body)
        self._parsed: dict[str, object] = {}

    def parsed(self, revision_id: str, definition: str, parse: Callable[[str], object]) -> object:
        """Return a revision in parsed form; it is parsed once."""
        if revision_id not in self._parsed:
            self._parsed[revision_id] = parse(definition)
        return self._parsed[revision_id]


Resource = TypeVar("Resource", Topic, Subscription, Snapshot, Schema)


class Registry:
    """All resources of a server, by name."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        create_state: Callable[[Subscription], SubscriptionState],
    ) -> None:
        self._store = store
        self._clock = clock
        self._create_state = create_state
        self.topics: dict[str, Topic] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.schemas: dict[str, Schema] = {}
        self.by_number: dict[int, Subscription] = {}
        for row in store.resources.all():
            self._add(row)

    def topic(self, name: str) -> Topic:
        """Return a topic; NotFound if there is none."""
        return _get(self.topics, name)

    def subscription(self, name: str) -> Subscription:
        """Return a subscription; NotFound if there is none."""
        return _get(self.subscriptions, name)

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot; NotFound if there is none."""
        return _get(self.snapshots, name)

    def schema(self, name: str) -> Schema:
        """Return a schema; NotFound if there is none."""
        return _get(self.schemas, name)

    def create_schema(self, name: str, revisions: Proto) -> None:
        """Store a new schema; AlreadyExists if there is one."""
        if name in self.schemas:
            raise AlreadyExists.of(name)
        row = self._new_row("schema", name, revisions)
        self._store.resources.save(row)
        self._add(row)

    def create(self, kind: str, proto: Proto) -> int:
        """Store a new resource and return its number; AlreadyExists if the name is taken."""
        if proto.name in self.topics or proto.name in self.subscriptions:
            raise AlreadyExists.of(proto.name)
        if proto.name in self.snapshots:
            raise AlreadyExists.of(proto.name)
        row = self._new_row(kind, proto.name, proto)
        self._store.resources.save(row)
        self._add(row)
        return row.number

    def save(self, resource: Topic | Subscription | Snapshot | Schema) -> None:
        """Write a changed resource."""
        if isinstance(resource, Subscription):
            resource.changed()
        else:
            resource.row.body = resource.proto.SerializeToString()
        self._store.resources.save(resource.row)

    def delete_topic(self, name: str) -> None:
        """Delete a topic. Its subscriptions keep their backlogs and show ``_deleted-topic_``."""
        topic = self.topic(name)
        for subscription in topic.subscriptions.values():
            subscription.proto.topic = DELETED_TOPIC
            self.save(subscription)
        for snapshot in topic.snapshots.values():
            snapshot.proto.topic = DELETED_TOPIC
            self.save(snapshot)
        del self.topics[name]
        self._forget(topic)

    def delete_subscription(self, name: str) -> Subscription:
        """Delete a subscription with all of its messages; return what it was."""
        subscription = self.subscription(name)
        del self.subscriptions[name]
        del self.by_number[subscription.row.number]
        subscription.is_deleted = True
        topic = self.topics.get(subscription.proto.topic)
        if topic is not None:
            topic.subscriptions.pop(name, None)
        subscription.state.reload()
        self._forget(subscription)
        return subscription

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot."""
        snapshot = self.snapshot(name)
        del self.snapshots[name]
        self._store.seeks.end_copy(snapshot.row.number)
        topic = self.topics.get(snapshot.proto.topic)
        if topic is not None:
            topic.snapshots.pop(name, None)
        self._forget(snapshot)

    def delete_schema(self, name: str) -> None:
        """Delete a schema. Its topics show ``_deleted-schema_``."""
        for topic in self.topics.values():
            if topic.proto.schema_settings.schema == name:
                topic.proto.schema_settings.schema = DELETED_SCHEMA
                self.save(topic)
        self._forget(self.schemas.pop(name))

    def detach(self, subscription: Subscription) -> None:
        """Cut a subscription off from its topic; its messages are dropped."""
        topic = self.topics.get(subscription.proto.topic)
        if topic is not None:
            topic.subscriptions.pop(subscription.row.name, None)
        subscription.proto.detached = True
        self._store.drop_backlog(subscription.row.number)
        self._store.seeks.end(subscription.row.number)
        subscription.state.reload()
        subscription.state.hold()
        self.save(subscription)

    def _forget(self, resource: Topic | Subscription | Snapshot | Schema) -> None:
        self._store.delete_resource(resource.row)

    def _new_row(self, kind: str, name: str, proto: Proto) -> ResourceRow:
        return ResourceRow(
            name=name,
            kind=kind,
            number=self._store.numbers.take_number(),
            body=proto.SerializeToString(),
            created_us=self._clock.now_us(),
        )

    def _add(self, row: ResourceRow) -> None:
        if row.kind == "topic":
            self.topics[row.name] = Topic(row)
        elif row.kind == "subscription":
            subscription = Subscription(row, self._create_state)
            subscription.used_us = self._clock.now_us()
            self.subscriptions[row.name] = subscription
            self.by_number[row.number] = subscription
            topic = self.topics.get(subscription.proto.topic)
            if topic is not None and not subscription.proto.detached:
                topic.subscriptions[row.name] = subscription
        elif row.kind == "schema":
            self.schemas[row.name] = Schema(row)
        else:
            snapshot = Snapshot(row)
            self.snapshots[row.name] = snapshot
            topic = self.topics.get(snapshot.proto.topic)
            if topic is not None:
                topic.snapshots[row.name] = snapshot


def in_project(resources: Iterable[Resource], project: str) -> list[Resource]:
    """Return the resources of ``projects/P``, by name."""
    prefix = f"{project}/"
    found = [resource for resource in resources if resource.row.name.startswith(prefix)]
    return sorted(found, key=lambda resource: resource.row.name)


def _get(resources: dict[str, Resource], name: str) -> Resource:
    resource = resources.get(name)
    if resource is None:
        raise NotFound.of(name)
    return resource
