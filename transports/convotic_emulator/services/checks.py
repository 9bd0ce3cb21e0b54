"""Checks and defaults for topics, subscriptions and messages: the service's documented rules.

Each function takes the raw protobuf message of a request and either completes it in place, as the
service would show it, or raises InvalidArgument with field and rule. Sources: the API reference
(google.pubsub.v1) and https://cloud.google.com/pubsub/quotas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.engine.filter import parse_filter
from convotic_emulator.engine.names import check_name
from convotic_emulator.engine.rules import Proto, duration_us
from convotic_emulator.errors import (
    DETACHED,
    FailedPrecondition,
    InvalidArgument,
    Unimplemented,
)
from convotic_emulator.services.push_config import check_push_config

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = [
    "check_labels",
    "check_messages",
    "check_pullable",
    "complete_subscription",
    "complete_topic",
    "refuse_unsupported",
]

DAY_SECONDS = 86_400
DEFAULT_ACK_DEADLINE_SECONDS = 10
MAX_ACK_DEADLINE_SECONDS = 600
MIN_RETENTION_SECONDS = 600
MAX_RETENTION_SECONDS = 31 * DAY_SECONDS
DEFAULT_RETENTION_SECONDS = 7 * DAY_SECONDS
DEFAULT_EXPIRATION_SECONDS = 31 * DAY_SECONDS
MIN_DELIVERY_ATTEMPTS = 5
MAX_DELIVERY_ATTEMPTS = 100
DEFAULT_MAX_DELIVERY_ATTEMPTS = 5
MAX_LABELS = 64
MAX_LABEL_LENGTH = 63

MAX_MESSAGES = 1000
#: Of data, in one message or in many.
MAX_REQUEST_BYTES = 10_000_000
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
MAX_ORDERING_KEY_BYTES = 1024

_ACTIVE = 1

_UNSUPPORTED_TOPIC = {
    "kms_key_name": "customer-managed encryption keys",
    "ingestion_data_source_settings": "ingestion from data sources",
    "message_transforms": "message transforms",
    "tags": "tags of the resource manager",
}
_UNSUPPORTED_SUBSCRIPTION = {
    "bigquery_config": "BigQuery subscriptions",
    "cloud_storage_config": "Cloud Storage subscriptions",
    "bigtable_config": "Bigtable subscriptions",
    "message_transforms": "message transforms",
    "tags": "tags of the resource manager",
}
#: What only the service sets: it ignores them in requests.
_OUTPUT_ONLY = (
    "satisfies_pzs",
    "topic_message_retention_duration",
    "analytics_hub_subscription_info",
)


def complete_topic(topic: Proto) -> None:
    """Check a topic and fill in what the service sets."""
    check_name(topic.name, "topics")
    refuse_unsupported(topic, _UNSUPPORTED_TOPIC)
    _clear_output_only(topic)
    check_labels(topic.labels)
    if topic.HasField("message_retention_duration"):
        _check_retention(topic.message_retention_duration)
    topic.state = _ACTIVE


def complete_subscription(subscription: Proto, push_hosts: Collection[str] = ()) -> None:
    """Check a subscription and fill in the service's defaults; it may push to ``push_hosts``."""
    check_name(subscription.name, "subscriptions")
    refuse_unsupported(subscription, _UNSUPPORTED_SUBSCRIPTION)
    _clear_output_only(subscription)
    check_push_config(subscription.push_config, push_hosts)
    if subscription.push_config.push_endpoint and subscription.enable_exactly_once_delivery:
        raise InvalidArgument("Push subscriptions can't have exactly-once delivery.")
    check_labels(subscription.labels)
    parse_filter(subscription.filter)
    deadline = subscription.ack_deadline_seconds or DEFAULT_ACK_DEADLINE_SECONDS
    check_ack_deadline(deadline)
    subscription.ack_deadline_seconds = deadline
    if not subscription.HasField("message_retention_duration"):
        subscription.message_retention_duration.seconds = DEFAULT_RETENTION_SECONDS
    _check_retention(subscription.message_retention_duration)
    _complete_expiration(subscription)
    if subscription.HasField("dead_letter_policy"):
        _complete_dead_letter_policy(subscription.dead_letter_policy)
    if subscription.HasField("retry_policy"):
        _complete_retry_policy(subscription.retry_policy)
    subscription.state = _ACTIVE


def check_ack_deadline(seconds: int) -> None:
    """Refuse an ack deadline that is not 10..600 s."""
    if not DEFAULT_ACK_DEADLINE_SECONDS <= seconds <= MAX_ACK_DEADLINE_SECONDS:
        raise InvalidArgument(
            f"Invalid ack deadline given (value={seconds}): it must be between"
            f" {DEFAULT_ACK_DEADLINE_SECONDS} and {MAX_ACK_DEADLINE_SECONDS} seconds."
        )


def check_pullable(subscription: Proto) -> None:
    """Refuse to pull from a subscription that is detached, or pushes."""
    if subscription.detached:
        raise FailedPrecondition(DETACHED)
    if subscription.push_config.push_endpoint:
        raise FailedPrecondition("This method is not supported for this subscription type: push.")


def check_messages(messages: Sequence[Proto], plain: Sequence[bytes] | None = None) -> None:
    """Refuse a publish request that breaks a limit; the whole request is refused.

    ``plain`` is what :func:`~convotic_emulator.engine.plain.plain_bodies` says of them.
    """
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise InvalidArgument(
            f"The value for message_count is {len(messages)}: a request has 1 to {MAX_MESSAGES}."
        )
    if plain is not None and sum(map(len, plain)) <= MAX_REQUEST_BYTES:
        return
    total = 0
    for message in messages:
        attributes = message.attributes
        if attributes:
            _check_attributes(attributes)
        elif not message.data:
            raise InvalidArgument("Some messages are empty: data or an attribute is required.")
        if len(message.ordering_key) * 4 > MAX_ORDERING_KEY_BYTES:
            _check_size("ordering_key", message.ordering_key, MAX_ORDERING_KEY_BYTES)
        total += len(message.data)
    if total > MAX_REQUEST_BYTES:
        raise InvalidArgument(
            f"The messages have {total} bytes; a request has at most {MAX_REQUEST_BYTES}."
        )


def _check_attributes(attributes: Mapping[str, str]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgument(
            f"A message has {len(attributes)} attributes; at most {MAX_ATTRIBUTES} are allowed."
        )
    for key, value in attributes.items():
        if not key:
            raise InvalidArgument("An attribute key is empty.")
        if key.startswith("goog") and not key.startswith("googclient_"):
            raise InvalidArgument(f"Attribute key {key!r}: keys that begin with goog are reserved.")
        if len(key) * 4 > MAX_KEY_BYTES:
            _check_size("attribute key", key, MAX_KEY_BYTES)
        if len(value) * 4 > MAX_VALUE_BYTES:
            _check_size(f"value of attribute {key!r}", value, MAX_VALUE_BYTES)


def _check_size(what: str, text: str, limit: int) -> None:
    size = len(text.encode())
    if size > limit:
        raise InvalidArgument(f"The {what} has {size} bytes; at most {limit} are allowed.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that break a rule, https://cloud.google.com/pubsub/docs/labels#requirements."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument(f"{len(labels)} labels are given; at most {MAX_LABELS} are allowed.")
    for key, value in labels.items():
        if not (_is_label(key) and key[:1].isalpha() and _is_label(value)):
            raise InvalidArgument(
                f"Invalid label {key!r}: {value!r}: key and value have at most {MAX_LABEL_LENGTH}"
                " characters, lower-case letters, digits, _ and -; a key begins with a letter."
            )


def _is_label(text: str) -> bool:
    """Return whether all characters are allowed: letters of any alphabet, but no capitals."""
    allowed = all(c in "_-" or (c.isalnum() and c == c.lower()) for c in text)
    return allowed and len(text) <= MAX_LABEL_LENGTH


def _clear_output_only(proto: Proto) -> None:
    for field in _OUTPUT_ONLY:
        if field in proto.DESCRIPTOR.fields_by_name:
            proto.ClearField(field)


def _check_retention(duration: Proto) -> None:
    too_long = duration.seconds == MAX_RETENTION_SECONDS and duration.nanos > 0
    if too_long or not MIN_RETENTION_SECONDS <= duration.seconds <= MAX_RETENTION_SECONDS:
        raise InvalidArgument(
            f"Invalid message_retention_duration (seconds={duration.seconds}):"
            " it must be between 10 minutes and 31 days."
        )


def _complete_expiration(subscription: Proto) -> None:
    if not subscription.HasField("expiration_policy"):
        subscription.expiration_policy.ttl.seconds = DEFAULT_EXPIRATION_SECONDS
    policy = subscription.expiration_policy
    if policy.HasField("ttl") and policy.ttl.seconds < DAY_SECONDS:
        raise InvalidArgument(
            f"Invalid expiration_policy.ttl (seconds={policy.ttl.seconds}):"
            " it must be at least one day, or absent for never."
        )


def _complete_dead_letter_policy(policy: Proto) -> None:
    check_name(policy.dead_letter_topic, "topics")
    attempts = policy.max_delivery_attempts or DEFAULT_MAX_DELIVERY_ATTEMPTS
    if not MIN_DELIVERY_ATTEMPTS <= attempts <= MAX_DELIVERY_ATTEMPTS:
        raise InvalidArgument(
            f"Invalid max_delivery_attempts (value={attempts}): it must be between 5 and 100."
        )
    policy.max_delivery_attempts = attempts


def _complete_retry_policy(policy: Proto) -> None:
    if not policy.HasField("minimum_backoff"):
        policy.minimum_backoff.seconds = 10
    if not policy.HasField("maximum_backoff"):
        policy.maximum_backoff.seconds = 600
    low, high = duration_us(policy.minimum_backoff), duration_us(policy.maximum_backoff)
    if not 0 <= low <= high <= 600 * SECOND_US:
        raise InvalidArgument(
            "Invalid retry_policy: 0 <= minimum_backoff <= maximum_backoff <= 600 seconds."
        )


def refuse_unsupported(proto: Proto, fields: Mapping[str, str]) -> None:
    """Refuse a request that has one of ``{field: what it is about}``."""
    present = {descriptor.name for descriptor, _ in proto.ListFields()}
    for field, what in fields.items():
        if field in present:
            raise Unimplemented(f"{what} ({field}) are not supported by convotic_emulator.")
