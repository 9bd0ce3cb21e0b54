"""The settings of a subscription that its state machine obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from convotic_emulator.engine.clock import SECOND_US

__all__ = ["Proto", "Rules", "duration_us", "rules_of"]

#: A raw protobuf message (``pubsub.Topic``); they have no stubs.
Proto: TypeAlias = Any


@dataclass(slots=True)
class Rules:
    """What of a subscription concerns its messages; may be replaced at any time."""

    ordered: bool = False
    exactly_once: bool = False
    retain_acknowledged: bool = False
    #: 0: no dead-letter policy, then nothing is counted for clients.
    max_delivery_attempts: int = 0
    #: 0: no retry policy, redelivery at once.
    min_backoff_us: int = 0
    max_backoff_us: int = 0
    retention_us: int = 7 * 86_400 * SECOND_US


def rules_of(subscription: Proto) -> Rules:
    """Return the rules of a subscription with all defaults filled in."""
    rules = Rules(
        ordered=subscription.enable_message_ordering,
        exactly_once=subscription.enable_exactly_once_delivery,
        retain_acknowledged=subscription.retain_acked_messages,
        retention_us=duration_us(subscription.message_retention_duration),
    )
    if subscription.HasField("dead_letter_policy"):
        rules.max_delivery_attempts = subscription.dead_letter_policy.max_delivery_attempts
    if subscription.HasField("retry_policy"):
        rules.min_backoff_us = duration_us(subscription.retry_policy.minimum_backoff)
        rules.max_backoff_us = duration_us(subscription.retry_policy.maximum_backoff)
    return rules


def duration_us(duration: Proto) -> int:
    """Return a protobuf Duration in microseconds."""
    return int(duration.seconds) * SECOND_US + int(duration.nanos) // 1000
