"""A kombu transport for Google Cloud Pub/Sub: ``broker_url = "pubsub://my-project"``.

Importing the package registers the URL scheme; gRPC is imported when a connection is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convotic_pubsub.plugin import register

if TYPE_CHECKING:
    from convotic_pubsub.kombu.transport import Transport
    from convotic_pubsub.options import TransportOptions, parse_options
    from convotic_pubsub.queue import QueueSpec
    from convotic_pubsub.registry import session_for
    from convotic_pubsub.session import Session

__all__ = [
    "QueueSpec",
    "Session",
    "Transport",
    "TransportOptions",
    "parse_options",
    "session_for",
]

_HOMES = {
    "QueueSpec": "queue",
    "Session": "session",
    "Transport": "transport",
    "TransportOptions": "options",
    "parse_options": "options",
    "session_for": "registry",
}

register()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
