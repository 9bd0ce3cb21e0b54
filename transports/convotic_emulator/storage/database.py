"""The SQLite file: transactions that many requests share, and its free room.

Policy: write-ahead log with ``synchronous=NORMAL``. A commit survives the death of the process at
any moment; a power loss can cost the last commits. ``fsync=True`` makes it FULL: then a commit
survives that too.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convotic_emulator.storage.datafile import MEMORY, open_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Database", "Row"]

#: The parameters of a statement.
Row: TypeAlias = "Sequence[str | int | bytes | None]"

#: Nothing is added while the disk has less room: acknowledgements need some, a checkpoint too.
RESERVED_BYTES = 16 * 1024 * 1024
#: A look at the disk takes 10 microseconds; what is written in between fits the reserve.
ROOM_SECONDS = 0.05

#: A file of less than 16 MB free pages is not worth shrinking.
_KEPT_PAGES = 4000
#: Some milliseconds of work.
_SHRUNK_PAGES = 500
#: The file is cut after so many slices: to cut off a GB takes a second.
_CUT_SLICES = 16


class Database:
    """One data file. Not thread-safe.

    Every method may raise sqlite3.Error; then the file's state is that of the last commit, and
    memory may be ahead of it: :meth:`rollback`, and read everything again.

    Raises:
        StoreError: the file is damaged, foreign or of another version; it was not changed.
    """

    def __init__(self, path: Path | str, *, fsync: bool) -> None:
        self._connection = open_file(path)
        self._folder = None if str(path) == MEMORY else Path(path).parent
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        self._in_transaction = False
        #: What :meth:`defer_many` keeps, in order.
        self._deferred: list[tuple[str, list[Row]]] = []
        self._shrunk = 0
        self._roomy_until = 0.0

    @property
    def has_uncommitted(self) -> bool:
        """Whether something was written since the last commit."""
        return self._in_transaction or bool(self._deferred)

    def commit(self) -> None:
        """Make all that was written durable."""
        if self._deferred:
            self._begin()
        if self._in_transaction:
            self._connection.execute("COMMIT")
            self._in_transaction = False

    def rollback(self) -> None:
        """Forget all that was written since the last commit."""
        self._in_transaction = False
        self._deferred.clear()
        if self._connection.in_transaction:  # SQLite may have ended it by itself
            self._connection.execute("ROLLBACK")

    def has_room(self) -> bool:
        """Return whether more can be added and still leave room for deletions."""
        now = time.monotonic()
        if self._folder is None or now < self._roomy_until:
            return True
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize >= RESERVED_BYTES:
            self._roomy_until = now + ROOM_SECONDS
            return True
        return self._pragma("freelist_count") * self._pragma("page_size") >= RESERVED_BYTES

    def close(self) -> None:
        """Commit, fold the log into the file, and close. Idempotent."""
        self.commit()
        self._connection.close()

    def abandon(self) -> None:
        """Close as the death of the process would: what was not committed is lost."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def write(self, statement: str, parameters: Row) -> int:
        """Execute a statement in the open transaction; begin one if there is none.

        Returns how many rows it has changed.
        """
        self._begin()
        return self._connection.execute(statement, parameters).rowcount

    def write_many(self, statement: str, rows: Iterable[Row]) -> int:
        """Execute a statement for each row, as :meth:`write` does."""
        self._begin()
        return self._connection.executemany(statement, rows).rowcount

    def read(self, query: str, parameters: Sequence[str | int] = ()) -> sqlite3.Cursor:
        """Return the rows of a query; it sees what is not committed yet."""
        if self._deferred:
            self._begin()
        return self._connection.execute(query, parameters)

    def defer_many(self, statement: str, rows: Iterable[Row]) -> None:
        """Execute a statement for each row later, with the same effect.

        That is with the commit, or before anything else is read or written. Those of many requests
        become one, if the statement is the same object, and what need not wait does not.
        """
        deferred = self._deferred
        if deferred and deferred[-1][0] is statement:
            deferred[-1][1].extend(rows)
        else:
            deferred.append((statement, list(rows)))

    def read_meta(self, key: str) -> str | int | None:
        """Return a value that concerns the whole file."""
        row = self.read("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def write_meta(self, key: str, value: str | int) -> None:
        """Set a value that concerns the whole file."""
        self.write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def shrink(self) -> bool:
        """Give some free pages back if most of a large file is free; say whether there are more.

        Waits for the end of an open transaction: it is one of its own.
        """
        free, pages = self._pragma("freelist_count"), self._pragma("page_count")
        is_due = free > max(_KEPT_PAGES, pages // 2)
        if self.has_uncommitted:
            return is_due
        if is_due:
            # execute() would stop at the first page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_SHRUNK_PAGES})")
            self._shrunk += 1
        if self._shrunk >= _CUT_SLICES or (self._shrunk and not is_due):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # this cuts the file
            self._shrunk = 0
        return is_due

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _begin(self) -> None:
        """Begin a transaction, if there is none, and write what was deferred."""
        if not self._in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            for statement, rows in deferred:
                self._connection.executemany(statement, rows)
