"""The AsyncAPI document of the handlers, https://www.asyncapi.com/docs/reference/specification/v3.0.0.

A topic is a channel, a handler is an operation that receives, and its dead letters are sent to its
dead-letter channel. A handler that takes CloudEvents has two messages: one whose attributes may be
those of an event (binary mode), and one that is the whole event (structured mode).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from convotic_celery.documents.schemas import JsonSchema, build_schemas

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["build_asyncapi"]

#: What a component's name may not have; a topic may.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_STRUCTURED = "application/cloudevents+json"
#: What an event must have, and may have: https://github.com/cloudevents/spec.
_EVENT_REQUIRED: dict[str, JsonSchema] = {
    "specversion": {"const": "1.0"},
    "id": {"type": "string", "minLength": 1},
    "source": {"type": "string", "minLength": 1},
    "type": {"type": "string", "minLength": 1},
}
_EVENT_OPTIONAL: dict[str, JsonSchema] = {
    "subject": {"type": "string", "minLength": 1},
    "time": {"type": "string", "format": "date-time"},
    "dataschema": {"type": "string", "minLength": 1},
}


def build_asyncapi(
    handlers: Iterable[HandlerDefinition],
    *,
    title: str = "Convotic handlers",
    version: str = "1",
) -> dict[str, Any]:
    """Return the document; its order is that of the handlers."""
    handlers = tuple(handlers)
    schemas, definitions = build_schemas({h.queue: h.payload_type for h in handlers})
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "servers": {"pubsub": {"host": "pubsub.googleapis.com", "protocol": "googlepubsub"}},
        "channels": _channels(handlers),
        "operations": dict(_operations(handlers)),
        "components": {
            "messages": {
                name: message
                for handler in handlers
                for name, message in _messages(handler, schemas[handler.queue])
            },
            "schemas": definitions,
        },
    }


def _channels(handlers: Iterable[HandlerDefinition]) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for handler in handlers:
        for topic in (handler.topic, handler.dead_letter_topic):
            channel = channels.setdefault(_name(topic), {"address": topic, "messages": {}})
            for name in _message_names(handler):
                channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
        channels[_name(handler.dead_letter_topic)]["description"] = (
            f"What {handler.queue} gave up, unchanged but for added attributes convotic-*."
        )
    return channels


def _operations(handlers: Iterable[HandlerDefinition]) -> Iterable[tuple[str, dict[str, Any]]]:
    for handler in handlers:
        summary, _, description = (inspect.getdoc(handler.handler) or "").partition("\n")
        yield (
            _name(handler.queue),
            {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{_name(handler.topic)}"},
                "summary": summary or getattr(handler.handler, "__name__", handler.queue),
                **({"description": description.strip()} if description.strip() else {}),
                "tags": [{"name": handler.module}],
                "messages": _messages_on(handler, handler.topic),
                "x-convotic": _facts(handler),
            },
        )
        yield (
            _name(handler.dead_letter_topic),
            {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_name(handler.dead_letter_topic)}"},
                "summary": f"Dead letters of {handler.queue}.",
                "tags": [{"name": handler.module}],
                "messages": _messages_on(handler, handler.dead_letter_topic),
            },
        )


def _messages_on(handler: HandlerDefinition, topic: str) -> list[dict[str, str]]:
    return [
        {"$ref": f"#/channels/{_name(topic)}/messages/{name}"} for name in _message_names(handler)
    ]


def _facts(handler: HandlerDefinition) -> Mapping[str, Any]:
    return {
        "module": handler.module,
        "moduleVersion": handler.module_version,
        "subscription": handler.subscription,
        "options": handler.options.model_dump(mode="json"),
    }


def _message_names(handler: HandlerDefinition) -> list[str]:
    name = _name(handler.queue)
    return [name] if handler.options.cloud_events == "off" else [name, f"{name}.structured-event"]


def _messages(handler: HandlerDefinition, payload: JsonSchema) -> Iterable[tuple[str, JsonSchema]]:
    kind = handler.payload_type
    title = getattr(kind, "__name__", None) or (str(kind) if kind else "Any JSON")
    name, *structured = _message_names(handler)
    yield (
        name,
        {
            "name": title,
            "contentType": "application/json",
            "headers": _headers(handler),
            "payload": payload,
        },
    )
    for each in structured:
        yield (
            each,
            {
                "name": f"{title}, as a CloudEvent",
                "contentType": _STRUCTURED,
                "headers": _structured_headers(handler),
                "payload": _event(payload),
            },
        )


def _headers(handler: HandlerDefinition) -> JsonSchema:
    """Describe the attributes of a message whose data is the payload."""
    found, required = _encoding(handler), []
    if handler.options.cloud_events != "off":
        found |= {f"ce-{name}": s for name, s in (_EVENT_REQUIRED | _EVENT_OPTIONAL).items()}
    if handler.options.cloud_events == "require":
        required = [f"ce-{name}" for name in _EVENT_REQUIRED]
    return _attributes(found, required)


def _structured_headers(handler: HandlerDefinition) -> JsonSchema:
    content_type = {"content-type": {"type": "string", "examples": [_STRUCTURED]}}
    return _attributes(content_type | _encoding(handler), ["content-type"])


def _encoding(handler: HandlerDefinition) -> dict[str, JsonSchema]:
    return {"content-encoding": {"enum": ["gzip"]}} if handler.options.accept_gzip else {}


def _attributes(properties: dict[str, JsonSchema], required: list[str]) -> JsonSchema:
    return {
        "type": "object",
        "description": "The Pub/Sub message's attributes.",
        **({"properties": properties} if properties else {}),
        **({"required": required} if required else {}),
        "additionalProperties": {"type": "string"},
    }


def _event(payload: JsonSchema) -> JsonSchema:
    """Describe an event in structured mode that carries the payload."""
    return {
        "type": "object",
        "description": "A CloudEvent in structured mode; other members are its extensions.",
        "properties": {
            **_EVENT_REQUIRED,
            **_EVENT_OPTIONAL,
            "datacontenttype": {"type": "string", "minLength": 1},
            "data": payload,
            "data_base64": {
                "type": "string",
                "contentEncoding": "base64",
                "description": "The data's JSON text, instead of data.",
            },
        },
        "required": list(_EVENT_REQUIRED),
    }


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)
