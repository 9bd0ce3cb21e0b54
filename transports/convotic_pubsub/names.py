"""Names: the only bridge between kombu's queues and Pub/Sub's topics and subscriptions. Pure."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import quote

from convotic_pubsub.errors import OptionError

__all__ = [
    "check_resource_id",
    "resource_id",
    "routing_header",
    "snippet",
    "subscription_path",
    "topic_path",
]

#: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_RESOURCE_ID = re.compile(r"[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_RULE = "3..255 characters of A-Z a-z 0-9 - _ . ~ + %, first a letter, not beginning with 'goog'"
_ESCAPE = "q~"
_LONGEST = 250
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9\-_.~+]")


def check_resource_id(kind: str, name: str) -> str:
    """Return ``name`` if Pub/Sub takes it as a topic or subscription id.

    Raises:
        OptionError: with the rule.
    """
    if not _RESOURCE_ID.fullmatch(name) or name.startswith("goog"):
        raise OptionError(f"{kind} name {name!r} is not valid in Pub/Sub: {_RULE}")
    return name


def resource_id(queue: str, prefix: str = "") -> str:
    """Return the id of the topic and subscription of an ordinary Celery queue.

    Two queues never share an id: what Pub/Sub does not allow is percent-encoded; a name that would
    be too short, or begins with no letter or with ``goog``, gets ``q~`` in front (as does one that
    begins with ``q~``); one that is too long ends in a hash.
    """
    name = prefix + _NOT_ALLOWED.sub(lambda m: quote(m.group(), safe=""), queue)
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 18]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    if not _RESOURCE_ID.fullmatch(name) or name.startswith(("goog", _ESCAPE)):
        name = _ESCAPE + name
    return check_resource_id("queue", name)


def topic_path(project: str, topic: str) -> str:
    """Return ``projects/P/topics/T``; a full path is returned as it is."""
    return topic if topic.startswith("projects/") else f"projects/{project}/topics/{topic}"


def subscription_path(project: str, subscription: str) -> str:
    """Return ``projects/P/subscriptions/S``; a full path is returned as it is."""
    if subscription.startswith("projects/"):
        return subscription
    return f"projects/{project}/subscriptions/{subscription}"


@lru_cache(maxsize=1024)
def routing_header(field: str, resource: str) -> tuple[str, str]:
    """Return the metadata that lets the service route a request, as Google's clients send it."""
    return ("x-goog-request-params", f"{field}={quote(resource, safe='')}")


def snippet(text: str, limit: int) -> str:
    """Return ``text`` cut to ``limit`` characters, with an ellipsis where something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
