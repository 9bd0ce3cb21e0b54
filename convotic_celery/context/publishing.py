"""Checks messages before anything is sent, and publishes them. Pure but for the publisher.

The limits are Pub/Sub's, https://cloud.google.com/pubsub/quotas#resource_limits; they are checked
here because the emulators don't, and a batch fails whole for one bad message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import PydanticSerializationError, from_json, to_json

from convotic_celery.context.confirmations import wait_for
from convotic_celery.errors import (
    EmptyMessage,
    InvalidAttribute,
    InvalidOrderingKey,
    InvalidTopic,
    MessageTooLarge,
    NotSerializable,
    PublishNotConfirmed,
    PublishRefused,
)
from convotic_celery.names import topic_problem
from convotic_pubsub.limits import (
    MAX_ATTRIBUTE_KEY_BYTES,
    MAX_ATTRIBUTE_VALUE_BYTES,
    MAX_ATTRIBUTES,
    MAX_MESSAGE_BYTES,
    MAX_ORDERING_KEY_BYTES,
)
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from convotic_pubsub.outgoing import Answer, Sending

__all__ = [
    "OutgoingMessage",
    "TopicPublisher",
    "build_message",
    "build_messages",
    "encode_json",
    "publish_async",
    "publish_sync",
]

#: No JSON parser here, pydantic's or Python's own, accepts more digits.
_MAX_DIGITS = 4300
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % _MAX_DIGITS)

RESERVED_PREFIXES = ("goog", "convotic-")
#: W3C trace context: passed on from the message that is being handled.
TRACE_ATTRIBUTES = ("traceparent", "tracestate")


class TopicPublisher(Protocol):
    """Sends raw messages; the runtime provides one."""

    def publish(self, message: OutgoingMessage, *, sending: Sending = "batched") -> Answer:
        """Send and return at once; the future gives the message id once the server confirmed.

        ``sending`` says whether many are coming (``batched``) or this is one (``directly``), for
        which the caller waits (``blocking``), and so may this.
        """
        ...


def build_message(
    topic: str,
    content: Mapping[str, Any] | None,
    *,
    data: Any,
    attributes: Mapping[str, str] | None,
    ordering_key: str,
    trace: Mapping[str, str],
) -> OutgoingMessage:
    """Return the message to send, or raise the PublishRefused that says which rule it breaks."""
    problem = topic_problem(topic) if isinstance(topic, str) else "it is a string"
    if problem:
        raise InvalidTopic(f"topic {topic!r} is not a valid name: {problem}.")
    if content is not None:
        data, attributes, ordering_key = _unpack(content, data, attributes, ordering_key)
    attributes = _copy_attributes(attributes)
    raw = b"" if data is None else encode_json(data)
    _check_attributes(attributes)
    _check_ordering_key(ordering_key)
    if not raw and not attributes:
        raise EmptyMessage("a message needs data or attributes; Pub/Sub refuses an empty one.")
    for name, value in trace.items():
        if len(attributes) < MAX_ATTRIBUTES:
            attributes.setdefault(name, value)
    message = OutgoingMessage(topic, raw, attributes, ordering_key)
    if message.size > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"the message has {message.size:,} bytes, Pub/Sub allows {MAX_MESSAGE_BYTES:,}: keep"
            " the data elsewhere and publish where it is."
        )
    return message


def build_messages(
    topic: str, contents: Iterable[Mapping[str, Any]], *, trace: Mapping[str, str]
) -> list[OutgoingMessage]:
    """Return all messages to send, or raise the refusal of the first that breaks a rule.

    Each is a mapping: ``{"data": ..., "attributes": {...}, "ordering_key": "..."}``.
    """
    outgoing = []
    for position, content in enumerate(contents):
        if not isinstance(content, Mapping):
            raise PublishRefused(
                f"message {position} is {type(content).__name__}: each is a mapping of data, "
                "attributes and ordering_key. Nothing was sent."
            )
        try:
            message = build_message(
                topic, content, data=None, attributes=None, ordering_key="", trace=trace
            )
        except PublishRefused as refusal:
            raise type(refusal)(f"message {position}: {refusal} Nothing was sent.") from refusal
        outgoing.append(message)
    return outgoing


def _unpack(
    content: Mapping[str, Any],
    data: Any,
    attributes: Mapping[str, str] | None,
    ordering_key: str,
) -> tuple[Any, Mapping[str, str] | None, str]:
    """Take the message from a mapping: ``{"data": ..., "attributes": ...}``."""
    unknown = set(content) - {"data", "attributes", "ordering_key", "orderingKey"}
    if unknown or not content:
        raise PublishRefused(
            "the second argument is a mapping of data, attributes and ordering_key"
            f"{', without ' + ', '.join(sorted(map(repr, unknown))) if unknown else ''}. "
            "To publish a value as it is, say data=value."
        )
    if data is not None or attributes is not None or ordering_key:
        raise PublishRefused("give the message as a mapping or as keyword arguments, not as both.")
    key = content.get("ordering_key", content.get("orderingKey", ""))
    return content.get("data"), content.get("attributes"), key


def encode_json(data: Any) -> bytes:
    """Return ``data`` as JSON; models, dates and Decimals have their pydantic form.

    Raises NotSerializable, also for bytes (they have no JSON form), and for values that a handler
    could not read back: NaN, infinity, numbers of thousands of digits, None as a key.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        raise NotSerializable(
            "data is JSON, and bytes have none: decode them, or encode them as base64."
        )
    try:
        raw = to_json(data)
        if b"NaN" in raw or b"Infinity" in raw or _has_long_number(raw):
            _refuse_unreadable(raw)
        if b'"None":' in raw:
            _refuse_none_keys(data)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotSerializable(
            f"data of type {type(data).__name__} can't be written as JSON: {error}"
        ) from error
    return raw


def _has_long_number(raw: bytes) -> bool:
    return len(raw) > _MAX_DIGITS and _LONG_NUMBER.search(raw) is not None


def _refuse_unreadable(raw: bytes) -> None:
    """Raise ValueError if it is a number that can't be read, and not text that looks like one."""
    try:
        from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        if "out of range" in str(error):
            raise ValueError("JSON readers refuse a number of more than 4,300 digits") from None
        raise ValueError("JSON has neither NaN nor infinity") from None


def _refuse_none_keys(data: object) -> None:
    """Raise ValueError if None is a key, which would arrive as the text "None"."""
    if isinstance(data, Mapping) and None in data:
        raise ValueError("a key of a JSON object is text, and None is not")
    if isinstance(data, Mapping | list | tuple):
        for each in data.values() if isinstance(data, Mapping) else data:
            _refuse_none_keys(each)


def _copy_attributes(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidAttribute(f"attributes are a mapping of strings, not {type(given).__name__}.")
    return dict(given)


def _check_attributes(attributes: Mapping[str, str]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidAttribute(
            f"a message has at most {MAX_ATTRIBUTES} attributes, not {len(attributes)}."
        )
    for name, value in attributes.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidAttribute(
                f"attribute {name!r} is {type(value).__name__}; names and values are strings."
            )
        if not 1 <= _size(name) <= MAX_ATTRIBUTE_KEY_BYTES:
            raise InvalidAttribute(
                f"attribute name {name[:40]!r} has {_size(name)} bytes; "
                f"1 to {MAX_ATTRIBUTE_KEY_BYTES} are allowed."
            )
        if name.startswith(RESERVED_PREFIXES):
            raise InvalidAttribute(
                f"attribute name {name!r} is reserved: it begins with "
                f"{' or '.join(map(repr, RESERVED_PREFIXES))}."
            )
        if _size(value) > MAX_ATTRIBUTE_VALUE_BYTES:
            raise InvalidAttribute(
                f"the value of attribute {name!r} has {_size(value)} bytes; "
                f"at most {MAX_ATTRIBUTE_VALUE_BYTES} are allowed."
            )


def _check_ordering_key(ordering_key: str) -> None:
    if not isinstance(ordering_key, str) or _size(ordering_key) > MAX_ORDERING_KEY_BYTES:
        raise InvalidOrderingKey(
            f"an ordering key is a string of at most {MAX_ORDERING_KEY_BYTES} bytes."
        )


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise PublishRefused(f"{text[:40]!r} can't be written as UTF-8: {error.reason}.") from None


async def publish_async(
    publisher: TopicPublisher, message: OutgoingMessage, timeout_seconds: float
) -> str:
    """Publish and return the message id once it is confirmed; the publisher's errors pass through.

    Being cancelled does not take the message back. Raises PublishNotConfirmed.
    """
    future = publisher.publish(message, sending="directly")
    if not await wait_for(future, timeout_seconds):
        raise PublishNotConfirmed(message.topic, timeout_seconds)
    return future.result()


def publish_sync(
    publisher: TopicPublisher, message: OutgoingMessage, timeout_seconds: float
) -> str:
    """Publish and block until it is confirmed; else as ``publish_async``."""
    future = publisher.publish(message, sending="blocking")
    try:
        return future.result(timeout_seconds)
    except TimeoutError:
        if future.done():
            raise
        raise PublishNotConfirmed(message.topic, timeout_seconds) from None
