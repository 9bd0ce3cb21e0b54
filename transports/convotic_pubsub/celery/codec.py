r"""kombu payload <-> Pub/Sub message for Celery's own queues. Pure.

On the wire an ordinary queue carries one line of JSON, and behind it the body as it is, so that
nothing is escaped twice and a binary body costs nothing::

    {"content-type": "application/json", "content-encoding": "utf-8",
     "headers": {"task": "add", "id": ...},
     "properties": {"priority": 0, "body_encoding": "text" | "bytes", ...}}\n
    [[1, 2], {}, {...}]

The body may also stand in the JSON, as ``"body"``: that is easier to write by hand. Headers may
hold what kombu's JSON can: dates, UUIDs, Decimals, bytes. They don't go into attributes: these are
limited to 1,024 bytes a value and 100 a message.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from kombu.utils.json import JSONEncoder, loads

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["decode_envelope", "encode_envelope"]

_JSON: Final = "application/json"
_encode: Final = JSONEncoder(separators=(",", ":")).encode


def encode_envelope(message: Mapping[str, Any]) -> bytes:
    """Return the wire form of a kombu payload.

    Raises:
        TypeError: a header is nothing that kombu's JSON can hold.
    """
    head, body = dict(message), message["body"]
    del head["body"]
    is_text = isinstance(body, str)
    head["properties"] = {
        **message["properties"],
        "body_encoding": "text" if is_text else "bytes",
    }
    raw = _encode_text(body, message.get("content-type")) if is_text else bytes(body)
    return b"%b\n%b" % (_encode(head).encode(), raw)


def _encode_text(body: str, content_type: str | None) -> bytes:
    r"""Return a text's bytes; JSON has its characters as they are, not as ``\u00e9``."""
    if content_type == _JSON and "\\u" in body:
        try:
            return json.dumps(json.loads(body), ensure_ascii=False).encode()
        except (ValueError, RecursionError):  # no JSON, or a lone surrogate
            pass
    return body.encode("utf-8", "surrogatepass")


def decode_envelope(data: bytes) -> dict[str, Any]:
    """Return the kombu payload of what :func:`encode_envelope` made.

    Raises:
        ValueError: it is not such a payload; the text says what is wrong.
    """
    head, newline, body = data.partition(b"\n")
    try:
        payload = _read_head(head)
    except ValueError:
        if not newline:
            raise
        payload, newline = _read_head(data), b""  # JSON of several lines
    for name, is_valid, rule in _RULES:
        if not is_valid(payload.get(name)):
            raise ValueError(f"not a kombu message: {name!r} must be {rule}")
    properties = payload["properties"]
    properties["delivery_info"] = properties.get("delivery_info") or {}
    if not isinstance(properties["delivery_info"], dict):
        raise ValueError("not a kombu message: 'delivery_info' must be an object")  # noqa: TRY004
    encoding = properties.pop("body_encoding", "text")
    if newline and "body" not in payload:
        payload["body"] = body if encoding == "bytes" else body.decode("utf-8", "surrogatepass")
    elif not isinstance(payload.get("body"), str):
        raise ValueError("not a kombu message: 'body' is missing, or no string")
    elif encoding == "base64":
        payload["body"] = base64.b64decode(payload["body"])
    elif encoding == "bytes":
        payload["body"] = payload["body"].encode()
    return payload


def _read_head(text: bytes) -> dict[str, Any]:
    try:
        # What kombu's JSON marks is rare, and looking for it takes longer than to read the rest.
        payload = loads(text) if b'"__' in text else json.loads(text)
    except RecursionError:
        raise ValueError("not a kombu message: the JSON is nested too deeply") from None
    if not isinstance(payload, dict):
        raise ValueError("not a kombu message: the JSON is no object")  # noqa: TRY004  one error type
    return payload


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


_RULES: Final = (
    ("headers", _is_object, "an object"),
    ("properties", _is_object, "an object"),
    ("content-type", _is_optional_text, "a string"),
    ("content-encoding", _is_optional_text, "a string"),
)
