"""kombu payload <-> Pub/Sub message for Celery's own queues. Pure.

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

__all__ = ["decode_envelope", "encode_envelope"]


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
