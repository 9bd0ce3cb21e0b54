"""The SQLite file: opening it with care, transactions that many requests share, numbers.

Policy: write-ahead log with ``synchronous=NORMAL``. A commit survives the death of the process at
any moment; a power loss can cost the last commits. ``fsync=True`` makes it FULL: then a commit
survives that too.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convotic_emulator.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MEMORY", "Database", "Row", "checksum"]

#: The parameters of a statement.
Row: TypeAlias = "Sequence[str | int | bytes | None]"

#: Open this instead of a path for a store that is gone when it is closed.
MEMORY = ":memory:"

#: "CVPS": tells our files from any other SQLite database.
APPLICATION_ID = 0x43565053
SCHEMA_VERSION = 4

#: Files up to this size are checked completely when opened (about 1 s for each GB).
_CHECKED_BYTES = 256 * 1024 * 1024

#: Of any SQLite database: a smaller file is no file.
_MIN_PAGE_BYTES = 512

#: 8 MB of log between checkpoints: a checkpoint syncs, and blocks for that long (20 to 60 ms).
_CHECKPOINT_PAGES = 2000

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

_SCHEMA = """
CREATE TABLE backlog (
    id INTEGER PRIMARY KEY, published_us INTEGER NOT NULL, attempts INTEGER NOT NULL,
    generation INTEGER NOT NULL, due_us INTEGER NOT NULL, key TEXT, body BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX backlog_by_key ON backlog (key, id) WHERE key IS NOT NULL;
CREATE TABLE acknowledged (
    id INTEGER PRIMARY KEY, published_us INTEGER NOT NULL, attempts INTEGER NOT NULL,
    generation INTEGER NOT NULL, due_us INTEGER NOT NULL, key TEXT, body BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE lease (
    position INTEGER PRIMARY KEY, number INTEGER NOT NULL, deadline_us INTEGER NOT NULL,
    entries BLOB NOT NULL
);
CREATE INDEX lease_by_deadline ON lease (deadline_us);
CREATE TABLE resource (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    created_us INTEGER NOT NULL, seeks INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE backlog_count (
    number INTEGER PRIMARY KEY, messages INTEGER NOT NULL, dead_lettered INTEGER NOT NULL
);
CREATE TABLE policy (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


def checksum(row: int, body: bytes) -> int:
    """Return what tells a message from a damaged one; the same in each backlog that has it."""
    return zlib.crc32(body, row & 0xFFFFFFFF)


class Database:
    """One data file. Not thread-safe.

    Every method may raise sqlite3.Error; then the file's state is that of the last commit, and
    memory may be ahead of it: :meth:`rollback`, and read everything again.

    Raises:
        StoreError: the file is damaged, foreign or of a newer version; it was not changed.
    """

    def __init__(self, path: Path | str, *, fsync: bool) -> None:
        self._connection = _open(path)
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
        """Say whether more can be added and still leave room for whatever takes out."""
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
        """Execute a statement for each row later, in a way that nobody can tell.

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


def _open(path: Path | str) -> sqlite3.Connection:
    """Open or create a data file; a damaged, newer or foreign one is refused as it is."""
    if str(path) != MEMORY:
        file = Path(path)
        if not file.exists():
            _create(file)
        _check(file)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    if str(path) == MEMORY:
        _write_schema(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def _create(file: Path) -> None:
    """Create an empty data file: complete, or not at all, so an empty one is a damaged one."""
    if _log_of(file).exists():
        raise StoreError(f"The data file {file} is missing, its log is there; nothing was changed.")
    draft = file.with_name(f"{file.name}.new")
    for left_over in (draft, draft.with_name(f"{draft.name}-journal")):
        left_over.unlink(missing_ok=True)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        _write_schema(connection)
    finally:
        connection.close()
    draft.replace(file)


def _write_schema(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only a new file can have it
    connection.executescript(
        f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


def _check(file: Path) -> None:
    """Look at a file without changing it: who closes one for writing folds its log into it."""
    try:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            _check_content(connection, file)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"The data file {file} can't be read ({error}); it was not changed."
        ) from error


def _check_content(connection: sqlite3.Connection, file: Path) -> None:
    size = file.stat().st_size
    if size < _MIN_PAGE_BYTES:  # SQLite would drop the log
        raise StoreError(f"The data file {file} is damaged ({size} bytes); it was not changed.")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(f"{file} is not a data file of convotic_emulator; it was not changed.")
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"{file} was written by a development version before 0.1.0 (schema {version}); it was"
            " not changed. Remove the folder, or use another one."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{file} was written by a newer version (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); it was not changed. Use that version, or another data folder."
        )
    log = _log_of(file)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    problem = "ok"
    if size != pages * page_bytes and not (log.exists() and log.stat().st_size):
        problem = f"{size} bytes instead of {pages * page_bytes}"
    elif pages * page_bytes <= _CHECKED_BYTES:
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem == "ok":
            problem = _check_messages(connection)
    if problem != "ok":
        raise StoreError(f"The data file {file} is damaged ({problem}); it was not changed.")


def _check_messages(connection: sqlite3.Connection) -> str:
    """Return "ok" or what is damaged: SQLite does not look at the data itself."""
    for row, body, expected in connection.execute(
        "SELECT id, body, checksum FROM backlog"
        " UNION ALL SELECT id, body, checksum FROM acknowledged"
    ):
        if checksum(row, body) != expected:
            return f"the message in row {row}"
    return "ok"


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")
