"""Writes log lines without blocking: the event loop writes them too, and readers may be slow."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import threading
from collections import deque
from typing import TextIO

from convotic_pubsub.threads import LazyThread

__all__ = ["UnblockedHandler"]

#: A pipe that says it is writable takes so much at once (POSIX's PIPE_BUF, on Linux).
_AT_ONCE_BYTES = 4096
#: Lines that wait for a slow reader; beyond that they are counted and dropped.
_MAX_WAITING = 10_000
_FLUSH_SECONDS = 2.0


class UnblockedHandler(logging.StreamHandler[TextIO]):
    """Writes where that does not block, and leaves the rest to a thread.

    Nearly every line is written by the caller, so that a process that crashes has written what it
    logged. Thread-safe.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread = LazyThread(self._write_waiting, name="convotic-log")
        self._poll = select.poll()
        self._file = stream.fileno()
        self._poll.register(self._file, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, now or soon."""
        try:
            encoding = self.stream.encoding or "utf-8"
            line = f"{self.format(record)}\n".encode(encoding, "backslashreplace")
            if not self._waiting and len(line) <= _AT_ONCE_BYTES and self._poll.poll(0):
                self.stream.flush()  # what was printed before
                _write(self._file, line)
            else:
                self._write_later(line)
        except Exception:  # noqa: BLE001 - as every handler
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say on stderr what could not be written. Raises nothing.

        Logging's own shows the error that is being handled too, a handler's perhaps, and raises
        whatever that one raises when it is looked at.
        """
        with contextlib.suppress(Exception):
            super().handleError(record)

    def flush(self) -> None:
        """Wait until what waits is written; not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, _FLUSH_SECONDS)

    def _write_later(self, line: bytes) -> None:
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self._dropped += 1
                return
            self._waiting.append(line)
            if self._thread.start():
                atexit.register(self.flush)
            self._changed.notify_all()

    def _write_waiting(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line, dropped = self._waiting[0], self._dropped
            if dropped:
                note = f"{dropped} log lines were dropped: whatever reads them is too slow\n"
                line = note.encode() + line
            with contextlib.suppress(OSError):  # the reader has gone
                _write(self._file, line)
            with self._changed:
                self._waiting.popleft()
                self._dropped -= dropped
                self._changed.notify_all()


def _write(file: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(file, line) :]
        except BlockingIOError:  # whoever shares the pipe has made it so: Node does
            room = select.poll()
            room.register(file, select.POLLOUT)
            room.poll()
