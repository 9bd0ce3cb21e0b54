"""What topics and subscriptions are set to, as values: what a queue asks for, and what differs.

Pure. ``client/admin.py`` reads and writes these on a server; names are full paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from convotic_pubsub.limits import lease_seconds
from convotic_pubsub.names import check_resource_id, subscription_path, topic_path

if TYPE_CHECKING:
    from convotic_pubsub.options import TransportOptions
    from convotic_pubsub.queue import QueueSpec

__all__ = [
    "EMULATOR_RETENTION_SECONDS",
    "FIXED_FIELDS",
    "Difference",
    "SubscriptionSettings",
    "TopicSettings",
    "subscription_differences",
    "topic_differences",
    "wanted_dead_letter_subscription",
    "wanted_subscription",
    "wanted_topics",
]

#: What Google's emulator takes at most (facts: 0.8.20 refuses more for a subscription).
EMULATOR_RETENTION_SECONDS: Final = 7 * 24 * 3600
_DEAD_LETTER_LEASE_SECONDS: Final = 60

#: What of a subscription can't be changed once it exists.
FIXED_FIELDS: Final = frozenset({"topic", "filter", "enable_message_ordering"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSettings:
    """A topic, as far as this transport cares."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Regions that may store its messages; empty: the service's default.
    message_storage_regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSettings:
    """A subscription, as far as this transport cares."""

    name: str
    topic: str
    filter: str = ""
    ack_deadline_seconds: int = 10
    enable_message_ordering: bool = False
    enable_exactly_once_delivery: bool = False
    message_retention_seconds: int = 7 * 24 * 3600
    #: The service deletes it when unused this long; 0: never.
    expiration_seconds: int = 0
    #: Full path; "" for no dead-letter policy.
    dead_letter_topic: str = ""
    max_delivery_attempts: int = 0
    #: Least and longest delay of a redelivery in seconds; None: no retry policy, the lease decides.
    retry_backoff_seconds: tuple[float, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Only of what exists: where it pushes to, and whether it is cut off from its topic.
    push_endpoint: str = ""
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is not as wanted. ``setting`` is a field's name, or ``labels.NAME``."""

    setting: str
    existing: object
    wanted: object

    def __str__(self) -> str:
        shown = (_shown(self.setting, value) for value in (self.existing, self.wanted))
        return "{} is {}, wanted {}".format(self.setting, *shown)


def _shown(setting: str, value: object) -> str:
    if setting == "expiration_seconds" and not value:
        return "never"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "unset"
    return "unset" if value in ("", None) else str(value)


def wanted_topics(spec: QueueSpec, options: TransportOptions) -> list[TopicSettings]:
    """Return the topics of a queue: its own, then the one of its dead letters.

    Raises:
        OptionError: a name breaks Pub/Sub's rules.
    """
    paths = [topic_path(options.project, t) for t in (spec.topic, spec.dead_letter_topic) if t]
    return [
        TopicSettings(
            name=_checked("topic", path),
            labels={**options.labels, **spec.labels},
            message_storage_regions=tuple(options.message_storage_regions),
        )
        for path in paths
    ]


def wanted_subscription(spec: QueueSpec, options: TransportOptions) -> SubscriptionSettings:
    """Return the subscription that a queue is consumed from.

    Raises:
        OptionError: its name breaks Pub/Sub's rules.
    """
    has_policy = bool(spec.dead_letter_topic and spec.max_delivery_attempts)
    return SubscriptionSettings(
        name=_checked("subscription", subscription_path(options.project, spec.subscription)),
        topic=topic_path(options.project, spec.topic),
        filter=spec.filter,
        ack_deadline_seconds=lease_seconds(spec.ack_deadline_seconds),
        enable_message_ordering=spec.enable_message_ordering,
        enable_exactly_once_delivery=spec.enable_exactly_once_delivery,
        message_retention_seconds=spec.message_retention_seconds,
        expiration_seconds=spec.expiration_seconds,
        dead_letter_topic=topic_path(options.project, spec.dead_letter_topic) if has_policy else "",
        max_delivery_attempts=spec.max_delivery_attempts if has_policy else 0,
        labels={**options.labels, **spec.labels},
    )


def wanted_dead_letter_subscription(
    spec: QueueSpec, options: TransportOptions
) -> SubscriptionSettings | None:
    """Return the subscription that keeps a queue's dead letters; None for a queue without."""
    if not spec.dead_letter_topic:
        return None
    name = spec.dead_letter_topic.rsplit("/", 1)[-1]
    return SubscriptionSettings(
        name=_checked("subscription", subscription_path(options.project, name)),
        topic=topic_path(options.project, spec.dead_letter_topic),
        ack_deadline_seconds=_DEAD_LETTER_LEASE_SECONDS,
        message_retention_seconds=spec.dead_letter_retention_seconds,
        labels={**options.labels, **spec.labels},
    )


def _checked(kind: str, path: str) -> str:
    check_resource_id(kind, path.rsplit("/", 1)[1])
    return path


#: Settings of a subscription that are compared, in the order in which people read them.
_COMPARED: Final = (
    "topic",
    "filter",
    "enable_message_ordering",
    "enable_exactly_once_delivery",
    "ack_deadline_seconds",
    "dead_letter_topic",
    "max_delivery_attempts",
    "retry_backoff_seconds",
    "message_retention_seconds",
    "expiration_seconds",
)


def subscription_differences(
    wanted: SubscriptionSettings, existing: SubscriptionSettings, *, is_emulated: bool = False
) -> list[Difference]:
    """Return what of a subscription is not as wanted; labels beyond the wanted ones are let be.

    Args:
        wanted: as it should be.
        existing: as it is.
        is_emulated: Google's emulator keeps a longer retention as seven days, which is no fault.
    """
    found = [
        Difference(name, getattr(existing, name), getattr(wanted, name))
        for name in _COMPARED
        if getattr(existing, name) != getattr(wanted, name)
    ]
    if is_emulated and wanted.message_retention_seconds > EMULATOR_RETENTION_SECONDS:
        found = [each for each in found if each.setting != "message_retention_seconds"]
    return found + _label_differences(wanted.labels, existing.labels)


def topic_differences(wanted: TopicSettings, existing: TopicSettings) -> list[Difference]:
    """Return what of a topic is not as wanted; without wanted regions any will do."""
    asked, there = (tuple(sorted(t.message_storage_regions)) for t in (wanted, existing))
    regions = [Difference("message_storage_regions", there, asked)] if asked else []
    return [d for d in regions if d.existing != d.wanted] + _label_differences(
        wanted.labels, existing.labels
    )


def _label_differences(wanted: Mapping[str, str], existing: Mapping[str, str]) -> list[Difference]:
    return [
        Difference(f"labels.{name}", existing.get(name, ""), value)
        for name, value in sorted(wanted.items())
        if existing.get(name, "") != value
    ]
