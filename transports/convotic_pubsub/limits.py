"""Pub/Sub's limits, stated once: https://cloud.google.com/pubsub/quotas#resource_limits. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_ACK_IDS",
    "MAX_ACK_ID_BYTES",
    "MAX_ATTRIBUTES",
    "MAX_ATTRIBUTE_KEY_BYTES",
    "MAX_ATTRIBUTE_VALUE_BYTES",
    "MAX_LEASE_SECONDS",
    "MAX_MESSAGES",
    "MAX_MESSAGE_BYTES",
    "MAX_ORDERING_KEY_BYTES",
    "MAX_RETENTION_SECONDS",
    "MIN_EXPIRATION_SECONDS",
    "MIN_LEASE_SECONDS",
    "MIN_RETENTION_SECONDS",
    "cut_utf8",
    "fit_attributes",
    "lease_seconds",
    "message_bytes",
]

MAX_MESSAGE_BYTES: Final = 10_000_000
MAX_ATTRIBUTES: Final = 100
MAX_ATTRIBUTE_KEY_BYTES: Final = 256
MAX_ATTRIBUTE_VALUE_BYTES: Final = 1024
MAX_ORDERING_KEY_BYTES: Final = 1024
#: Messages in one Publish request or one Pull response.
MAX_MESSAGES: Final = 1000
#: Ids in one request, as many as Google's own clients send (googleapis/google-cloud-go#20391).
MAX_ACK_IDS: Final = 1000
#: A request may have 512 KiB; the subscription's name and the framing of the ids need some.
MAX_ACK_ID_BYTES: Final = 500_000
#: A subscription's ack deadline. ModifyAckDeadline takes 0..600.
MIN_LEASE_SECONDS: Final = 10
MAX_LEASE_SECONDS: Final = 600
#: How long a subscription keeps unacknowledged messages.
MIN_RETENTION_SECONDS: Final = 600
MAX_RETENTION_SECONDS: Final = 31 * 24 * 3600
#: The service deletes a subscription that was not used for as long.
MIN_EXPIRATION_SECONDS: Final = 86_400


def lease_seconds(ack_deadline_seconds: float) -> int:
    """Return a subscription's ack deadline for a queue's: whole seconds, 10..600."""
    return min(MAX_LEASE_SECONDS, max(MIN_LEASE_SECONDS, math.ceil(ack_deadline_seconds)))


def message_bytes(data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> int:
    """Return the size of a message as Pub/Sub counts it: data, names and values of attributes."""
    size = len(data) + len(ordering_key.encode())
    for name, value in attributes.items():
        size += len(name.encode()) + len(value.encode())
    return size


def cut_utf8(text: str, max_bytes: int = MAX_ATTRIBUTE_VALUE_BYTES) -> str:
    """Return ``text`` cut at a character's edge to at most ``max_bytes`` of UTF-8.

    A lone surrogate, which has no UTF-8 form, becomes ``?``.
    """
    raw = text.encode("utf-8", "replace")
    return raw[:max_bytes].decode("utf-8", "ignore")


def fit_attributes(
    data: bytes, attributes: Mapping[str, str], added: Mapping[str, str]
) -> dict[str, str]:
    """Return ``attributes`` with as many of ``added`` as fit a message, in their order.

    A value is cut to 1,024 bytes. One that replaces a value of the same name counts what it adds;
    where that does not fit, the old value stays.
    """
    result = dict(attributes)
    size = message_bytes(data, attributes)
    for name, value in added.items():
        cut = cut_utf8(value)
        is_new = name not in result
        replaced = 0 if is_new else len(name.encode()) + len(result[name].encode())
        grown = size - replaced + len(name.encode()) + len(cut.encode())
        if grown > MAX_MESSAGE_BYTES or (is_new and len(result) >= MAX_ATTRIBUTES):
            if is_new:
                break
            continue
        result[name] = cut
        size = grown
    return result
