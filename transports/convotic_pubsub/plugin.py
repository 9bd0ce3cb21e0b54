"""Registers ``pubsub://`` with kombu. Light: it imports neither gRPC nor Google's client.

kombu has no entry point for transports, but it loads the group ``kombu.serializers`` in every
process that uses Celery; loading :data:`serializer` registers the alias on the way. So
``celery -b pubsub://my-project inspect ping`` works wherever the package is installed.
"""

from __future__ import annotations

import os
from typing import Final

from kombu.transport import TRANSPORT_ALIASES

__all__ = ["register", "serializer"]


def register() -> None:
    """Make kombu know ``pubsub://``. Idempotent."""
    TRANSPORT_ALIASES.setdefault("pubsub", "convotic_pubsub.kombu.transport:Transport")
    # gRPC's own attempt at forking waits for its threads and then gives up with a line on stderr;
    # a forked child goes through relay.py instead and never enters gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")


def _raw(data: bytes) -> bytes:
    return data


register()

#: What the entry point hands to ``kombu.serialization.register``: bytes as they are.
serializer: Final = (_raw, _raw, "application/x-pubsub-raw", "binary")
