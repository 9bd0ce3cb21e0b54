"""CloudEvents 1.0 on Pub/Sub: :class:`CloudEvent`, and how one is read from a message. Pure.

It reads both forms that Google's services send, as in the protocol binding
https://github.com/google/knative-gcp/blob/main/docs/spec/pubsub-protocol-binding.md:
*binary*, where the data is the data and attributes ``ce-id``, ``ce-source``, ... describe it, and
*structured*, where the attribute ``content-type`` is ``application/cloudevents+json`` and the data
is the whole event. The official SDK is not used: it checks what the model below checks, and would
be a dependency of every worker.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from convotic_celery.errors import InvalidMessage
from convotic_celery.sdk.infinite import find_infinite

__all__ = ["CloudEvent", "CloudEvents", "read_event"]

#: The option ``cloud_events``.
CloudEvents: TypeAlias = Literal["off", "accept", "require"]

_Text = Annotated[str, Field(min_length=1)]
_PREFIX = "ce-"
_STRUCTURED = "application/cloudevents"
_BATCH = "application/cloudevents-batch"
#: Members of a structured event that are not attributes.
_DATA_MEMBERS = ("data", "data_base64")


class CloudEvent(BaseModel):
    """The attributes of an event, as https://github.com/cloudevents/spec defines them.

    Its data is ``message.data``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"]
    #: Unique among the events of its source: a good key for deduplication together with that.
    id: _Text
    source: _Text
    type: _Text
    subject: _Text | None = None
    time: AwareDatetime | None = None
    datacontenttype: _Text | None = None
    dataschema: _Text | None = None
    #: All other attributes, by name.
    extensions: Mapping[str, str | bool | int] = Field(default_factory=dict)


def read_event(
    raw: bytes, attributes: Mapping[str, str], mode: CloudEvents
) -> tuple[CloudEvent | None, bytes]:
    """Return the message's event, None if it is not one, and its data as JSON text.

    Raises:
        InvalidMessage: It is no event and ``mode`` is ``require``, or it violates CloudEvents.
    """
    if mode == "off":
        return None, raw
    content_type = _find(attributes, "content-type").partition(";")[0].strip().lower()
    if content_type.startswith(_BATCH):
        raise InvalidMessage("the message is a batch of CloudEvents; send one event per message")
    if content_type.startswith(_STRUCTURED):
        return _read_structured(raw, content_type)
    if _find(attributes, f"{_PREFIX}specversion"):
        return _read_binary(attributes, content_type), raw
    if mode == "require":
        raise InvalidMessage(
            "the message is not a CloudEvent: it has neither the attribute ce-specversion nor the "
            "content-type application/cloudevents+json"
        )
    return None, raw


def _find(attributes: Mapping[str, str], name: str) -> str:
    """Return an attribute's value, ignoring the case of its name; "" if there is none."""
    if name in attributes:
        return attributes[name]
    return next((value for other, value in attributes.items() if other.lower() == name), "")


def _read_binary(attributes: Mapping[str, str], content_type: str) -> CloudEvent:
    given: dict[str, Any] = {
        name.lower().removeprefix(_PREFIX): value
        for name, value in attributes.items()
        if name.lower().startswith(_PREFIX)
    }
    if content_type:
        given["datacontenttype"] = content_type
    return _build(given)


def _read_structured(raw: bytes, content_type: str) -> tuple[CloudEvent, bytes]:
    if content_type not in (_STRUCTURED, f"{_STRUCTURED}+json"):
        raise InvalidMessage(f"the CloudEvent is in {content_type}; only JSON is supported")
    if (number := find_infinite(raw)) is not None:
        raise InvalidMessage(f"the CloudEvent has a number that is out of range: {number}")
    try:
        members = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidMessage(f"the CloudEvent is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise InvalidMessage("the CloudEvent is not a JSON object")
    event = _build({name: v for name, v in members.items() if name not in _DATA_MEMBERS})
    return event, _data_of(members)


def _data_of(members: Mapping[str, Any]) -> bytes:
    """Return the data as JSON text, b"" if the event has none."""
    if "data_base64" not in members:
        return to_json(members["data"]) if "data" in members else b""
    if "data" in members:
        raise InvalidMessage("the CloudEvent has both data and data_base64")
    try:
        return base64.b64decode(members["data_base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InvalidMessage("the CloudEvent's data_base64 is not base64") from None


def _build(given: Mapping[str, Any]) -> CloudEvent:
    known = {name: v for name, v in given.items() if name in _ATTRIBUTES and v is not None}
    extensions = {name: v for name, v in given.items() if name not in _ATTRIBUTES}
    try:
        return CloudEvent(**known, extensions=extensions)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise InvalidMessage(f"the CloudEvent's {where}: {problem['msg']}") from None


_ATTRIBUTES = frozenset(CloudEvent.model_fields) - {"extensions"}
