"""Which permission a call needs on which resource, and which role gives which. Pure.

Sources: https://cloud.google.com/pubsub/docs/access-control (required permissions, roles). Nothing
enforces them but faults, for tests (``faults.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from convotic_emulator.engine.rules import Proto

__all__ = ["ROLES", "expand_roles", "needed_permissions", "project_of_resource"]

_PUBLISHER: Final = frozenset({"pubsub.topics.publish"})
_SUBSCRIBER: Final = frozenset(
    {"pubsub.snapshots.seek", "pubsub.subscriptions.consume", "pubsub.topics.attachSubscription"}
)
_KINDS: Final = ("schemas", "snapshots", "subscriptions", "topics")
_VIEWER: Final = frozenset(f"pubsub.{kind}.{verb}" for kind in _KINDS for verb in ("get", "list"))
_CHANGES: Final = frozenset(
    f"pubsub.{kind}.{verb}" for kind in _KINDS for verb in ("create", "delete", "update")
)
_EDITOR: Final = frozenset(
    {*_PUBLISHER, *_SUBSCRIBER, *_VIEWER, *_CHANGES, "pubsub.topics.detachSubscription"}
)
_POLICIES: Final = frozenset(
    f"pubsub.{kind}.{verb}" for kind in _KINDS for verb in ("getIamPolicy", "setIamPolicy")
)

#: The permissions of Pub/Sub's predefined roles, as far as this server has methods for them.
ROLES: Final[Mapping[str, frozenset[str]]] = {
    "roles/pubsub.publisher": _PUBLISHER,
    "roles/pubsub.subscriber": _SUBSCRIBER,
    "roles/pubsub.viewer": _VIEWER,
    "roles/pubsub.editor": _EDITOR,
    "roles/pubsub.admin": _EDITOR | _POLICIES,
}

#: Pairs of a permission and the name of the resource that it is needed on.
_Needed: TypeAlias = "tuple[tuple[str, str], ...]"


def _on(permission: str, field: str) -> Callable[[Proto], _Needed]:
    """Return what finds a permission on the resource that a field of the request names."""

    def find(request: Proto) -> _Needed:
        value = request
        for name in field.split("."):
            value = getattr(value, name)
        return ((f"pubsub.{permission}", str(value)),)

    return find


def _create(kind: str) -> Callable[[Proto], _Needed]:
    return lambda request: ((f"pubsub.{kind}.create", project_of_resource(request.name)),)


def _create_subscription(request: Proto) -> _Needed:
    return (
        ("pubsub.subscriptions.create", project_of_resource(request.name)),
        ("pubsub.topics.attachSubscription", request.topic),
    )


def _create_snapshot(request: Proto) -> _Needed:
    return (
        ("pubsub.snapshots.create", project_of_resource(request.name or request.subscription)),
        ("pubsub.subscriptions.consume", request.subscription),
    )


def _seek(request: Proto) -> _Needed:
    needed = (("pubsub.subscriptions.consume", request.subscription),)
    return (*needed, ("pubsub.snapshots.seek", request.snapshot)) if request.snapshot else needed


def _policy(verb: str) -> Callable[[Proto], _Needed]:
    def find(request: Proto) -> _Needed:
        kind = request.resource.split("/")[2] if request.resource.count("/") >= 3 else "topics"  # noqa: PLR2004
        return ((f"pubsub.{kind}.{verb}", request.resource),)

    return find


_METHODS: Final[Mapping[str, Callable[[Proto], _Needed]]] = {
    "CreateTopic": _create("topics"),
    "GetTopic": _on("topics.get", "topic"),
    "ListTopics": _on("topics.list", "project"),
    "ListTopicSubscriptions": _on("topics.get", "topic"),
    "ListTopicSnapshots": _on("topics.get", "topic"),
    "UpdateTopic": _on("topics.update", "topic.name"),
    "DeleteTopic": _on("topics.delete", "topic"),
    "DetachSubscription": _on("topics.detachSubscription", "subscription"),
    "Publish": _on("topics.publish", "topic"),
    "CreateSubscription": _create_subscription,
    "GetSubscription": _on("subscriptions.get", "subscription"),
    "ListSubscriptions": _on("subscriptions.list", "project"),
    "UpdateSubscription": _on("subscriptions.update", "subscription.name"),
    "ModifyPushConfig": _on("subscriptions.update", "subscription"),
    "DeleteSubscription": _on("subscriptions.delete", "subscription"),
    "Pull": _on("subscriptions.consume", "subscription"),
    "StreamingPull": _on("subscriptions.consume", "subscription"),
    "Acknowledge": _on("subscriptions.consume", "subscription"),
    "ModifyAckDeadline": _on("subscriptions.consume", "subscription"),
    "CreateSnapshot": _create_snapshot,
    "GetSnapshot": _on("snapshots.get", "snapshot"),
    "ListSnapshots": _on("snapshots.list", "project"),
    "UpdateSnapshot": _on("snapshots.update", "snapshot.name"),
    "DeleteSnapshot": _on("snapshots.delete", "snapshot"),
    "Seek": _seek,
    "GetIamPolicy": _policy("getIamPolicy"),
    "SetIamPolicy": _policy("setIamPolicy"),
}


def needed_permissions(method: str, request: Proto) -> Iterable[tuple[str, str]]:
    """Return what a call needs: pairs of a permission and the full name of a resource.

    Nothing for methods that need none (TestIamPermissions) and for those of schemas.
    """
    find = _METHODS.get(method)
    return find(request) if find else ()


def project_of_resource(name: str) -> str:
    """Return ``projects/P`` of a resource's full name."""
    return "/".join(name.split("/")[:2])


def expand_roles(granted: Iterable[str]) -> frozenset[str]:
    """Return the permissions of roles and permissions.

    Raises:
        KeyError: an unknown role.
    """
    found: set[str] = set()
    for each in granted:
        found |= ROLES[each] if each.startswith("roles/") else {each}
    return frozenset(found)
