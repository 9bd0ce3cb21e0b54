"""Folds the write-ahead log into the data file beside the server's loop, on a thread of its own.

A checkpoint syncs the disk, which takes 4 to 60 ms; a commit that does it blocks all requests.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpointer"]

#: Rows that were written since the last checkpoint, or seconds, until the next one.
_ROWS = 5000
_PAUSE_SECONDS = 0.25


class Checkpointer:
    """A thread that checkpoints a file some time after something was committed to it."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._rows = 0
        self._committed = threading.Event()
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emulator-checkpoint", daemon=True)
        self._thread.start()

    def committed(self, rows: int) -> None:
        """Have what was committed folded in soon; ``rows`` counts all that were ever written."""
        if not self._committed.is_set():
            self._rows = rows
            self._committed.set()
        elif rows > self._rows + _ROWS and not self._due.is_set():
            self._due.set()

    def stop(self) -> None:
        """End the thread, before the file is closed. Idempotent."""
        self._stopping.set()  # before the thread wakes up
        self._committed.set()
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            while not self._stopping.is_set():
                self._committed.wait()
                self._due.wait(_PAUSE_SECONDS)
                self._committed.clear()
                self._due.clear()
                began = time.monotonic()
                _checkpoint(connection)
                # As long again nothing: a commit finds the log free when it has to fold it itself.
                self._stopping.wait(time.monotonic() - began)
        finally:
            connection.close()


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Do what can be done without waiting for anybody, or anybody for it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error:
        # A full disk, say: the log grows, and the commit that it has grown too long for tells it.
        return
