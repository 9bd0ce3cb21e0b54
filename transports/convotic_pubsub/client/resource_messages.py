"""Topics and subscriptions as the API's messages, from and to their settings."""

from __future__ import annotations

from typing import Any

from convotic_pubsub.client.rpc import pb
from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

__all__ = ["read_subscription", "read_topic", "subscription_message", "topic_message"]


def topic_message(topic: TopicSettings) -> Any:
    """Return a ``Topic`` as it is created."""
    message = pb.Topic(name=topic.name, labels=dict(topic.labels))
    if topic.message_storage_regions:
        regions = message.message_storage_policy.allowed_persistence_regions
        regions.extend(topic.message_storage_regions)
    return message


def read_topic(message: Any) -> TopicSettings:
    """Return what a ``Topic`` of the server says."""
    return TopicSettings(
        name=message.name,
        labels=dict(message.labels),
        message_storage_regions=tuple(message.message_storage_policy.allowed_persistence_regions),
    )


def subscription_message(settings: SubscriptionSettings) -> Any:
    """Return a ``Subscription`` as it is created."""
    message = pb.Subscription(
        name=settings.name,
        topic=settings.topic,
        ack_deadline_seconds=settings.ack_deadline_seconds,
        filter=settings.filter,
        enable_message_ordering=settings.enable_message_ordering,
        enable_exactly_once_delivery=settings.enable_exactly_once_delivery,
        labels=dict(settings.labels),
    )
    message.message_retention_duration.seconds = settings.message_retention_seconds
    message.expiration_policy.SetInParent()  # set without ttl: never expires
    if settings.expiration_seconds:
        message.expiration_policy.ttl.seconds = settings.expiration_seconds
    if settings.dead_letter_topic:
        policy = message.dead_letter_policy
        policy.dead_letter_topic = settings.dead_letter_topic
        policy.max_delivery_attempts = settings.max_delivery_attempts
    if settings.retry_backoff_seconds is not None:
        least, longest = settings.retry_backoff_seconds
        message.retry_policy.minimum_backoff.FromNanoseconds(round(least * 1e9))
        message.retry_policy.maximum_backoff.FromNanoseconds(round(longest * 1e9))
    return message


def read_subscription(message: Any) -> SubscriptionSettings:
    """Return what a ``Subscription`` of the server says."""
    retry = message.retry_policy
    return SubscriptionSettings(
        name=message.name,
        topic=message.topic,
        filter=message.filter,
        ack_deadline_seconds=message.ack_deadline_seconds,
        enable_message_ordering=message.enable_message_ordering,
        enable_exactly_once_delivery=message.enable_exactly_once_delivery,
        message_retention_seconds=message.message_retention_duration.seconds,
        expiration_seconds=message.expiration_policy.ttl.seconds,
        dead_letter_topic=message.dead_letter_policy.dead_letter_topic,
        max_delivery_attempts=message.dead_letter_policy.max_delivery_attempts,
        retry_backoff_seconds=(
            (_seconds(retry.minimum_backoff), _seconds(retry.maximum_backoff))
            if message.HasField("retry_policy")
            else None
        ),
        labels=dict(message.labels),
        push_endpoint=message.push_config.push_endpoint,
        is_detached=message.detached,
    )


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds() / 1e9)
