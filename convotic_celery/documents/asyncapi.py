"""The AsyncAPI document of the handlers, https://www.asyncapi.com/docs/reference/specification/v3.0.0.

A topic is a channel, a handler is an operation that receives, and what it gives up is sent to its
dead-letter channel.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from convotic_celery.documents.schemas import JsonSchema, SchemaKey, build_schemas

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["build_asyncapi"]

#: What a component's name may not have; a topic may.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_HEADERS: JsonSchema = {
    "type": "object",
    "description": "The Pub/Sub message's attributes.",
    "additionalProperties": {"type": "string"},
}


def build_asyncapi(
    handlers: Iterable[HandlerDefinition],
    *,
    title: str = "Convotic handlers",
    version: str = "1",
) -> dict[str, Any]:
    """Return the document; its order is that of the handlers."""
    handlers = tuple(handlers)
    types: dict[SchemaKey, Any] = {(h.queue, "validation"): h.payload_type for h in handlers}
    schemas, definitions = build_schemas(types)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "servers": {"pubsub": {"host": "pubsub.googleapis.com", "protocol": "googlepubsub"}},
        "channels": _channels(handlers),
        "operations": dict(_operations(handlers)),
        "components": {
            "messages": {
                _name(handler.queue): _message(handler, schemas[(handler.queue, "validation")])
                for handler in handlers
            },
            "schemas": definitions,
        },
    }


def _channels(handlers: Iterable[HandlerDefinition]) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for handler in handlers:
        reference = {"$ref": f"#/components/messages/{_name(handler.queue)}"}
        for topic in (handler.topic, handler.dead_letter_topic):
            channel = channels.setdefault(_name(topic), {"address": topic, "messages": {}})
            channel["messages"][_name(handler.queue)] = reference
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
                "messages": [_message_of(handler, handler.topic)],
                "x-convotic": _facts(handler),
            },
        )
        yield (
            _name(handler.dead_letter_topic),
            {
                "action": "send",
                "channel": {"$ref": f"#/channels/{_name(handler.dead_letter_topic)}"},
                "summary": f"What {handler.queue} gives up.",
                "tags": [{"name": handler.module}],
                "messages": [_message_of(handler, handler.dead_letter_topic)],
            },
        )


def _message_of(handler: HandlerDefinition, topic: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{_name(topic)}/messages/{_name(handler.queue)}"}


def _facts(handler: HandlerDefinition) -> Mapping[str, Any]:
    return {
        "module": handler.module,
        "moduleVersion": handler.module_version,
        "subscription": handler.subscription,
        "options": handler.options.model_dump(mode="json"),
    }


def _message(handler: HandlerDefinition, schema: JsonSchema) -> dict[str, Any]:
    kind = handler.payload_type
    return {
        "name": getattr(kind, "__name__", None) or (str(kind) if kind else "Any JSON"),
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": schema,
    }


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)
