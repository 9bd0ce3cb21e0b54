"""Opening the data file: a damaged one, and one of another version, is refused as it is."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

from convotic_emulator.errors import StoreError

__all__ = ["MEMORY", "checksum", "open_file"]

#: Open this instead of a path for a store that is gone when it is closed.
MEMORY = ":memory:"

#: "CVPS": tells our files from any other SQLite database.
APPLICATION_ID = 0x43565053
SCHEMA_VERSION = 5

#: Files up to this size are checked completely when opened (about 1 s for each GB).
_CHECKED_BYTES = 256 * 1024 * 1024

#: Of any SQLite database: a smaller file is no file.
_MIN_PAGE_BYTES = 512

#: 8 MB of log between checkpoints: a checkpoint syncs, and blocks for that long (20 to 60 ms).
_CHECKPOINT_PAGES = 2000

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
CREATE TABLE pack (
    id INTEGER PRIMARY KEY, last INTEGER NOT NULL, published_us INTEGER NOT NULL,
    seed BLOB NOT NULL, checksum INTEGER NOT NULL, sizes BLOB NOT NULL, body BLOB NOT NULL
);
CREATE TABLE settled (id INTEGER PRIMARY KEY, bits BLOB NOT NULL);
"""


def checksum(row: int, body: bytes, sizes: bytes = b"") -> int:
    """Return what tells a message from a damaged one; the same in each backlog that has it.

    ``sizes`` are those of a pack's messages.
    """
    return zlib.crc32(sizes, zlib.crc32(body, row & 0xFFFFFFFF))


def open_file(path: Path | str) -> sqlite3.Connection:
    """Open or create a data file; a damaged, foreign or other version's is refused as it is."""
    if str(path) != MEMORY:
        file = Path(path)
        if not file.exists():
            _create(file)
        _check(file)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if str(path) == MEMORY:
            _write_schema(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
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
    """Check a file without changing it: opened for writing, its log would be folded into it."""
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
    if version != SCHEMA_VERSION:
        written_by = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreError(
            f"{file} was written by {written_by} version (schema {version}, this one reads"
            f" {SCHEMA_VERSION}); it was not changed. Use that version or another data folder, or"
            f" delete {file.name}* with all its messages."
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
    for row, sizes, body, expected in connection.execute(
        "SELECT id, sizes, body, checksum FROM pack"
    ):
        if checksum(row, body, sizes) != expected:
            return f"the messages in pack {row}"
    return "ok"


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")
