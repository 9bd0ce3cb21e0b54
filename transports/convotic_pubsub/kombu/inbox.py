"""The way from the I/O thread to the thread that runs kombu's loop: a queue and a descriptor."""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue whose descriptor is readable while something may be in it.

    :meth:`put` and :meth:`signal` may be called from any thread; one thread takes.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._signalled = False
        self._closed = False
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # macOS
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._reader

    def put(self, item: T) -> None:
        """Append an item and wake the reader, if it isn't awake already."""
        self._items.append(item)
        self.signal()

    def signal(self) -> None:
        """Make the descriptor readable."""
        if not self._signalled and not self._closed:
            self._signalled = True
            with contextlib.suppress(OSError):  # a full pipe is readable anyway; closed meanwhile
                os.write(self._writer, (1).to_bytes(8, "little"))

    def acknowledge(self) -> None:
        """Make the descriptor unreadable; call before taking."""
        with contextlib.suppress(OSError):
            os.read(self._reader, 8)
        self._signalled = False

    def take(self) -> T | None:
        """Return the next item, None when there is none."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def __len__(self) -> int:
        return len(self._items)

    def wait(self, timeout_seconds: float | None) -> bool:
        """Block until the descriptor is readable; False after the timeout (None: no timeout)."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        return bool(poller.poll(None if timeout_seconds is None else timeout_seconds * 1000))

    def close(self) -> None:
        """Close the descriptor; later puts are kept, but wake no thread."""
        if not self._closed:
            self._closed = True
            os.close(self._reader)
            if self._writer != self._reader:
                os.close(self._writer)
