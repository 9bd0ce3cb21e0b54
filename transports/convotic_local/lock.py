"""File locks between processes: what makes "one server a folder" true.

The kernel drops such a lock when its last holder dies, so a killed process never leaves one behind.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["POLL_SECONDS", "FileLock"]

#: How often a waiting process looks again. A lock is held for a start (about 0.2 s) or a look.
POLL_SECONDS = 0.02


class FileLock:
    """An exclusive ``flock`` on a file that is created when missing. Not reentrant.

    Unlike the package ``filelock`` it can be handed to a child, which then holds it too, and be
    looked at without being taken.

    Args:
        path: The file. It stays when the lock is released.
        wait_seconds: How long ``with`` waits for the lock.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0) -> None:
        self.path = path
        self._wait_seconds = wait_seconds
        self._fd: int | None = None

    def take(self, *, wait_seconds: float = 0) -> bool:
        """Take the lock and return True, or False if it was held elsewhere all the time.

        Raises:
            OSError: The file can't be created or opened.
        """
        until = time.monotonic() + wait_seconds
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        pause = threading.Event()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(fd)
                    return False
                pause.wait(POLL_SECONDS)
            else:
                self._fd = fd
                return True

    def release(self) -> None:
        """Give the lock back. A child that inherited :meth:`fileno` still holds it. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def fileno(self) -> int:
        """Return the descriptor of a lock that is held, to be inherited by a child."""
        assert self._fd is not None, f"{self.path} is not locked"
        return self._fd

    def is_held(self) -> bool:
        """Return whether it is held. Creates nothing, and does not take it."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):  # to take it says what is wrong
            return False
        try:
            # Shared, for an instant: two that look don't see each other.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            TimeoutError: Another process held it for ``wait_seconds``.
        """
        if not self.take(wait_seconds=self._wait_seconds):
            raise TimeoutError(f"another process has held {self.path} for {self._wait_seconds:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()
