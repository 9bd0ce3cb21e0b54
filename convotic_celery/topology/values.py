"""What a topology is, wanted and found: values. Names are full paths. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convotic_pubsub.client.admin import Binding
    from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

__all__ = [
    "AGENT_DOMAIN",
    "MIGRATION_LABEL",
    "PUBLISHER",
    "SUBSCRIBER",
    "VIEWER",
    "Actual",
    "Desired",
    "WantedBinding",
    "replacement_of",
    "service_agent",
    "snapshot_of",
]

PUBLISHER: Final = "roles/pubsub.publisher"
SUBSCRIBER: Final = "roles/pubsub.subscriber"
VIEWER: Final = "roles/pubsub.viewer"
#: Of the service accounts that Pub/Sub itself acts as, one a project.
AGENT_DOMAIN: Final = "gcp-sa-pubsub.iam.gserviceaccount.com"

#: On the second subscription of a replacement: when it began, in seconds since 1970. On a
#: subscription that was made again: its messages are still to be put back.
MIGRATION_LABEL: Final = "convotic-migration"
_SUFFIX: Final = ".migration"
_LONGEST_NAME: Final = 255


@dataclass(frozen=True, slots=True, order=True)
class WantedBinding:
    """A role that somebody needs on one resource."""

    resource: str
    role: str
    member: str


@dataclass(frozen=True, slots=True)
class Desired:
    """A deployment's topology; everything is in the order of creation."""

    project: str
    topics: tuple[TopicSettings, ...]
    subscriptions: tuple[SubscriptionSettings, ...]
    #: Empty where Pub/Sub's own service account is not known.
    bindings: tuple[WantedBinding, ...] = ()
    #: What the names of this app's resources begin with; "" for no such rule.
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Actual:
    """What exists."""

    topics: Mapping[str, TopicSettings]
    subscriptions: Mapping[str, SubscriptionSettings]
    is_emulated: bool = False
    #: Whether everything of the project could be listed; else only what is wanted was looked for.
    is_complete: bool = True
    #: Of the resources that have a wanted binding.
    bindings: Mapping[str, tuple[Binding, ...]] = field(default_factory=dict)


def service_agent(project_number: str) -> str:
    """Return the member that Pub/Sub itself acts as in a project."""
    return f"serviceAccount:service-{project_number}@{AGENT_DOMAIN}"


def replacement_of(subscription: str) -> str:
    """Return the name of the second subscription during a replacement."""
    parent, _, name = subscription.rpartition("/")
    return f"{parent}/{name[: _LONGEST_NAME - len(_SUFFIX)]}{_SUFFIX}"


def snapshot_of(subscription: str) -> str:
    """Return the name of the snapshot that keeps the messages during a replacement."""
    return replacement_of(subscription).replace("/subscriptions/", "/snapshots/")
