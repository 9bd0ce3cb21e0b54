"""Snapshot methods of the Subscriber service, and Seek."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.engine.names import DELETED_TOPIC, check_name, check_project, project_of
from convotic_emulator.engine.registry import in_project
from convotic_emulator.errors import FailedPrecondition, InvalidArgument, NotFound
from convotic_emulator.services.changes import SNAPSHOT_FIELDS, changed_copy
from convotic_emulator.services.checks import check_labels, refuse_unsupported
from convotic_emulator.services.paging import page_of
from convotic_protos import pubsub as t

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto

__all__ = ["SnapshotMethods"]

_SNAPSHOTS = t.ListSnapshotsResponse
_SOUGHT = t.SeekResponse

#: https://cloud.google.com/pubsub/docs/replay-overview: 7 days less the age of the oldest message.
LIFETIME_US = 7 * 86_400 * SECOND_US
MIN_LIFETIME_US = 3_600 * SECOND_US


class SnapshotMethods:
    """Create, get, list, update and delete snapshots; seek to one, or to a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, tuple[Any, Any]]:
        """Return behaviour and request by method name."""
        return {
            "CreateSnapshot": (self.create, t.CreateSnapshotRequest),
            "GetSnapshot": (self.get, t.GetSnapshotRequest),
            "ListSnapshots": (self.list, t.ListSnapshotsRequest),
            "UpdateSnapshot": (self.update, t.UpdateSnapshotRequest),
            "DeleteSnapshot": (self.delete, t.DeleteSnapshotRequest),
            "Seek": (self.seek, t.SeekRequest),
        }

    async def create(self, request: Proto) -> Proto:
        """Keep what a subscription has unacknowledged, and all that its topic gets from now on."""
        check_name(request.subscription, "subscriptions")
        refuse_unsupported(request, {"tags": "tags of the resource manager"})
        check_labels(request.labels)
        subscription = self._engine.registry.subscription(request.subscription)
        if subscription.proto.topic == DELETED_TOPIC or subscription.proto.detached:
            raise FailedPrecondition("The subscription has no topic any more.")
        name = request.name or (
            f"projects/{project_of(request.subscription)}/snapshots/s{secrets.token_hex(8)}"
        )
        snapshot = t.Snapshot(
            name=check_name(name, "snapshots"),
            topic=subscription.proto.topic,
            labels=request.labels,
        )
        now_us = self._engine.clock.now_us()
        oldest_us = self._engine.store.backlogs.oldest_us(subscription.row.number) or now_us
        expires_us = oldest_us + LIFETIME_US
        if expires_us < now_us + MIN_LIFETIME_US:
            raise FailedPrecondition("The snapshot would expire in less than one hour.")
        snapshot.expire_time.seconds, micros = divmod(expires_us, SECOND_US)
        snapshot.expire_time.nanos = micros * 1000
        await self._engine.seeks.create_snapshot(subscription, snapshot)
        return snapshot

    async def get(self, request: Proto) -> Proto:
        """Return a snapshot."""
        return self._engine.registry.snapshot(check_name(request.snapshot, "snapshots")).proto

    async def list(self, request: Proto) -> Proto:
        """Return a page of a project's snapshots."""
        found = in_project(self._engine.registry.snapshots.values(), check_project(request.project))
        page, token = page_of(found, lambda snapshot: snapshot.row.name, request)
        return _SNAPSHOTS(snapshots=[entry.proto for entry in page], next_page_token=token)

    async def update(self, request: Proto) -> Proto:
        """Change labels or expiry of a snapshot."""
        snapshot = self._engine.registry.snapshot(check_name(request.snapshot.name, "snapshots"))
        changed = changed_copy(
            snapshot.proto, request.snapshot, request.update_mask, SNAPSHOT_FIELDS
        )
        check_labels(changed.labels)
        if changed.expire_time.seconds * SECOND_US > snapshot.row.created_us + LIFETIME_US:
            raise InvalidArgument("A snapshot expires at most 7 days after its creation.")
        snapshot.proto = changed
        self._engine.registry.save(snapshot)
        return snapshot.proto

    async def delete(self, request: Proto) -> Proto:
        """Delete a snapshot."""
        self._engine.registry.delete_snapshot(check_name(request.snapshot, "snapshots"))
        return empty_pb2.Empty()

    async def seek(self, request: Proto) -> Proto:
        """Set a subscription's acknowledgements to those of a time or of a snapshot."""
        name = check_name(request.subscription, "subscriptions")
        subscription = self._engine.registry.subscription(name)
        target = request.WhichOneof("target")
        if target == "time":
            time_us = request.time.seconds * SECOND_US + request.time.nanos // 1000
            topic = self._engine.registry.topics.get(subscription.proto.topic)
            source = topic if topic is not None and topic.retains else None
            await self._engine.seeks.seek(subscription, time_us=time_us, source=source)
        elif target == "snapshot":
            snapshot = self._engine.registry.snapshot(check_name(request.snapshot, "snapshots"))
            if snapshot.proto.topic != subscription.proto.topic:
                raise FailedPrecondition("The snapshot is of another topic than the subscription.")
            if not snapshot.is_complete:
                raise NotFound.of(snapshot.row.name)  # its creation is not confirmed yet
            await self._engine.seeks.seek(subscription, time_us=None, source=snapshot)
        else:
            raise InvalidArgument("Invalid seek target: a time or a snapshot is required.")
        return _SOUGHT()
