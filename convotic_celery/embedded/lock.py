"""File locks between processes: what makes "one store a data folder" true.

The kernel drops such a lock when its last holder dies, so a killed process never leaves one behind.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FileLock", "holding"]

#: How often a waiting process looks again. A lock is held for a start (about 0.2 s) or a look.
POLL_SECONDS = 0.02


class FileLock:
    """An exclusive ``flock`` on a file that is created when missing. Not reentrant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free and tell whether that worked; never waits.

        Raises:
            OSError: The file can't be created or opened.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back. A child that inherited :meth:`fileno` still holds it. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def fileno(self) -> int:
        """Return the descriptor of a lock that is held, to be inherited by a child."""
        assert self._fd is not None, f"{self._path} is not locked"
        return self._fd

    def is_held_elsewhere(self) -> bool:
        """Tell whether somebody holds it, without keeping it."""
        if not self.take():
            return True
        self.release()
        return False


@contextmanager
def holding(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock at ``path`` for the ``with`` block, waiting for it at most ``timeout_seconds``.

    Raises:
        TimeoutError: Somebody else held it all that time.
        OSError: The file can't be created or opened.
    """
    lock = FileLock(path)
    pause = threading.Event()
    until = time.monotonic() + timeout_seconds
    while not lock.take():
        if time.monotonic() > until:
            raise TimeoutError(f"another process has held {path} for {timeout_seconds:g} s")
        pause.wait(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
