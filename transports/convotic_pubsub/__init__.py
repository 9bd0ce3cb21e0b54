"""A kombu transport for Google Cloud Pub/Sub: ``broker_url = "pubsub://my-project"``.

::

    plugin    registers the URL scheme
    kombu     what kombu and Celery see: transport, channel, message
    registry  finds the process's session
    session   the process's client, which wires the rest
    celery    Celery's own queues: envelopes, exchanges, remote control
    consume   subscriptions, leases, streams
    publish   confirmed publishing, also for a forked child
    client    gRPC
    the other files know no server: options, queue (the ports to a framework), outgoing (messages
    to publish), topology, names, limits, figures, threads, outage, age, errors

Each imports what stands below it. Importing the package registers the URL scheme; gRPC and kombu
are imported when they are needed.
"""

from __future__ import annotations

from convotic_pubsub.plugin import register

TYPE_CHECKING = False  # as in plugin.py: this runs at every start of Python
if TYPE_CHECKING:
    from typing import Any

    from convotic_pubsub.kombu.transport import Transport
    from convotic_pubsub.options import TransportOptions, parse_options
    from convotic_pubsub.outgoing import OutgoingMessage
    from convotic_pubsub.queue import QueueSpec
    from convotic_pubsub.registry import session_for
    from convotic_pubsub.session import Session

__all__ = [
    "OutgoingMessage",
    "QueueSpec",
    "Session",
    "Transport",
    "TransportOptions",
    "parse_options",
    "session_for",
]

_HOMES = {
    "OutgoingMessage": "outgoing",
    "QueueSpec": "queue",
    "Session": "session",
    "Transport": "kombu.transport",
    "TransportOptions": "options",
    "parse_options": "options",
    "session_for": "registry",
}

register()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  not at every start of Python

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
