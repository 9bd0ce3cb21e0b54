"""kombu payload <-> Pub/Sub message for Celery's own queues, and the limits of a message. Pure.

On the wire an ordinary queue carries kombu's payload as JSON in ``data``::

    {"body": "[[1, 2], {}, {...}]", "content-type": "application/json",
     "content-encoding": "utf-8", "headers": {"task": "add", "id": ...},
     "properties": {"priority": 0, "body_encoding": "utf-8" | "base64", ...}}

Headers don't go into attributes: these are limited to 1,024 bytes a value and 100 a message.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_ATTRIBUTE_VALUE_BYTES",
    "MAX_MESSAGE_BYTES",
    "cut_utf8",
    "decode_envelope",
    "encode_envelope",
    "fit_attributes",
    "message_bytes",
]

#: https://cloud.google.com/pubsub/quotas#resource_limits
MAX_MESSAGE_BYTES = 10_000_000
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_VALUE_BYTES = 1024


def encode_envelope(message: Mapping[str, Any]) -> bytes:
    """Return the wire form of a kombu payload; a binary body travels as base64."""
    body = message["body"]
    properties = dict(message["properties"])
    if isinstance(body, bytes):
        try:
            body, encoding = body.decode("utf-8"), "bytes"
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(body).decode("ascii"), "base64"
    else:
        encoding = "text"
    properties["body_encoding"] = encoding
    return json.dumps({**message, "body": body, "properties": properties}).encode()


def decode_envelope(data: bytes) -> dict[str, Any]:
    """Return the kombu payload of what :func:`encode_envelope` made.

    Raises:
        ValueError: it is not such a payload; the text says what is missing.
    """
    payload = json.loads(data)
    if not isinstance(payload, dict):
        raise ValueError("not a kombu message: the JSON is no object")  # noqa: TRY004  one error type
    for key in ("body", "headers", "properties"):
        if key not in payload:
            raise ValueError(f"not a kombu message: {key!r} is missing")
    properties = payload["properties"]
    if not isinstance(properties, dict) or not isinstance(payload["headers"], dict):
        raise ValueError("not a kombu message: headers and properties must be objects")  # noqa: TRY004
    encoding = properties.pop("body_encoding", "text")
    if encoding == "base64":
        payload["body"] = base64.b64decode(payload["body"])
    elif encoding == "bytes":
        payload["body"] = payload["body"].encode()
    return payload


def message_bytes(data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> int:
    """Return the size of a message as Pub/Sub counts it: data, names and values of attributes."""
    size = len(data) + len(ordering_key.encode())
    return size + sum(len(k.encode()) + len(v.encode()) for k, v in attributes.items())


def cut_utf8(text: str, max_bytes: int = MAX_ATTRIBUTE_VALUE_BYTES) -> str:
    """Return ``text`` cut on a character's edge to at most ``max_bytes`` of UTF-8.

    A lone surrogate, which has no UTF-8 form, becomes ``?``.
    """
    raw = text.encode("utf-8", "replace")
    return raw[:max_bytes].decode("utf-8", "ignore")


def fit_attributes(
    data: bytes, attributes: Mapping[str, str], added: Mapping[str, str]
) -> dict[str, str]:
    """Return ``attributes`` with as many of ``added`` as fit, in their order.

    Values are cut to 1,024 bytes; 100 attributes and 10,000,000 bytes are the service's limits.
    """
    result = dict(attributes)
    size = message_bytes(data, attributes)
    for name, value in added.items():
        cut = cut_utf8(value)
        grown = size + len(name.encode()) + len(cut.encode())
        if name not in result and (len(result) >= MAX_ATTRIBUTES or grown > MAX_MESSAGE_BYTES):
            break
        result[name] = cut
        size = grown
    return result
