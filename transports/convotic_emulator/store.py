"""What survives a restart: one SQLite file, written in transactions that many requests share.

Policy: write-ahead log with ``synchronous=NORMAL``. A commit survives the death of the process at
any moment; a power loss can cost the last commits. ``fsync=True`` makes it FULL: then a commit
survives that too.

Rows of all backlogs (subscriptions, snapshots, retained topics) are in one table whose key is
``number << 40 | seq``: one B-tree, in which a backlog is a range in publish order, and taking the
next page or removing a run of rows touches neighbouring pages only. The body is stored once for
each subscription: that costs disk for a fan-out, and saves every join, reference count and sweep.

Not thread-safe. Every method may raise sqlite3.Error; then the file's state is that of the last
commit, memory may be ahead of it, and the server must stop.
"""

from __future__ import annotations

import secrets
import sqlite3
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convotic_emulator.errors import StoreError
from convotic_emulator.lease import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["MEMORY", "ResourceRow", "Store"]

#: Open this instead of a path for a store that is gone when it is closed.
MEMORY = ":memory:"

#: "CVPS": tells our files from any other SQLite database.
APPLICATION_ID = 0x43565053
SCHEMA_VERSION = 1

#: Bits of a message number within a row key: 10^12 messages, 8 million backlogs.
SEQ_BITS = 40
_SEQ_MASK = (1 << SEQ_BITS) - 1

#: Message numbers are reserved in blocks, so that none is used twice after a crash.
_SEQ_BLOCK = 100_000

#: Files up to this size are checked completely when opened (about 1 s for each GB).
_CHECKED_BYTES = 256 * 1024 * 1024

_COLUMNS = "id, published_us, attempts, generation, due_us, key, body"
_TABLE = """(
    id INTEGER PRIMARY KEY, published_us INTEGER NOT NULL, attempts INTEGER NOT NULL,
    generation INTEGER NOT NULL, due_us INTEGER NOT NULL, key TEXT, body BLOB NOT NULL
)"""
_SCHEMA = f"""
CREATE TABLE backlog {_TABLE};
CREATE INDEX backlog_by_key ON backlog (key, id) WHERE key IS NOT NULL;
CREATE TABLE acknowledged {_TABLE};
CREATE TABLE lease (
    position INTEGER PRIMARY KEY, number INTEGER NOT NULL, deadline_us INTEGER NOT NULL,
    entries BLOB NOT NULL
);
CREATE TABLE resource (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    created_us INTEGER NOT NULL, used_us INTEGER NOT NULL, seeks INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE policy (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


@dataclass(slots=True)
class ResourceRow:
    """A topic, subscription or snapshot as stored; ``body`` is its serialized message."""

    name: str
    #: ``topic``, ``subscription`` or ``snapshot``.
    kind: str
    number: int
    body: bytes
    created_us: int
    used_us: int
    #: How many times the subscription was sought: makes ack ids of before it void.
    seeks: int = 0


class Store:
    """One data file, or a store in memory. Implements the state machine's Journal."""

    def __init__(self, path: Path | str, *, fsync: bool = False, now_us: int = 0) -> None:
        self._path = path
        self._connection = _open(path)
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        self._in_transaction = False
        if not self._meta("token"):
            self._initialize(now_us)
        #: Part of every ack id: those of another data file are refused.
        self.token = str(self._meta("token"))
        #: Added to a message's number to give its id: ids differ between data files.
        self.id_base = int(str(self._meta("id_base")))
        self._next_seq = int(str(self._meta("next_seq")))
        self._reserved_seq = self._next_seq
        self._next_position = self._scalar("SELECT coalesce(max(position), 0) + 1 FROM lease")

    @property
    def has_uncommitted(self) -> bool:
        """Whether something was written since the last commit."""
        return self._in_transaction

    def commit(self) -> None:
        """Make all that was written durable."""
        if self._in_transaction:
            self._connection.execute("COMMIT")
            self._in_transaction = False

    def close(self) -> None:
        """Commit, fold the log into the file, and close. Idempotent."""
        self.commit()
        self._connection.close()

    # Numbers

    def take_seqs(self, count: int) -> int:
        """Reserve ``count`` message numbers in a row; return the first."""
        first = self._next_seq
        self._next_seq += count
        if self._next_seq > self._reserved_seq:
            self._reserved_seq = self._next_seq + _SEQ_BLOCK
            self._set_meta("next_seq", self._reserved_seq)
        return first

    def take_number(self) -> int:
        """Return a number that no backlog has had."""
        number = int(str(self._meta("next_number")))
        self._set_meta("next_number", number + 1)
        return number

    # Resources

    def resources(self) -> list[ResourceRow]:
        """Return all resources, oldest first."""
        rows = self._connection.execute(
            "SELECT name, kind, number, body, created_us, used_us, seeks FROM resource"
            " ORDER BY number"
        )
        return [ResourceRow(*row) for row in rows]

    def save_resource(self, row: ResourceRow) -> None:
        """Write a resource, new or changed."""
        self._write(
            "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.name, row.kind, row.number, row.body, row.created_us, row.used_us, row.seeks),
        )

    def delete_resource(self, name: str) -> None:
        """Forget a resource and its access policy."""
        self._write("DELETE FROM resource WHERE name = ?", (name,))
        self._write("DELETE FROM policy WHERE name = ?", (name,))

    def read_policy(self, name: str) -> bytes | None:
        """Return the serialized access policy of a resource."""
        row = self._connection.execute("SELECT body FROM policy WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_policy(self, name: str, body: bytes) -> None:
        """Write the access policy of a resource."""
        self._write("INSERT OR REPLACE INTO policy VALUES (?, ?)", (name, body))

    # Backlogs

    def append(self, number: int, entries: Iterable[tuple[int, int, str | None, bytes]]) -> None:
        """Add messages to a backlog: ``(seq, published_us, key, body)``."""
        base = number << SEQ_BITS
        self._write_many(
            f"INSERT INTO backlog ({_COLUMNS}) VALUES (?, ?, 0, 0, 0, ?, ?)",
            [(base | seq, published_us, key, body) for seq, published_us, key, body in entries],
        )

    def read_page(
        self, number: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return the next rows with their data, and whether there may be more after them."""
        low, high = _range(number, after_seq + 1)
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (low, high, max_messages),
        )
        page: list[Message] = []
        size = 0
        for row in rows:
            page.append(_message(row))
            size += page[-1].size
            if size >= max_bytes:
                rows.close()
                return page, True
        return page, len(page) == max_messages

    def read_key(
        self, number: int, key: str, after_seq: int, to_seq: int, limit: int
    ) -> list[Message]:
        """Return rows of one ordering key without their data, in order."""
        rows = self._connection.execute(
            "SELECT id, published_us, attempts, generation, due_us, key, length(body) FROM backlog"
            " WHERE key = ? AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (key, _range(number, after_seq + 1)[0], number << SEQ_BITS | to_seq, limit),
        )
        return [_message(row) for row in rows]

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        bodies: dict[int, bytes] = {}
        for seq in seqs:
            row = self._connection.execute(
                "SELECT body FROM backlog WHERE id = ?", (number << SEQ_BITS | seq,)
            ).fetchone()
            if row is not None:
                bodies[seq] = row[0]
        return bodies

    def find(self, number: int, seq: int) -> Message | None:
        """Return one row without its data."""
        row = self._connection.execute(
            "SELECT id, published_us, attempts, generation, due_us, key, length(body) FROM backlog"
            " WHERE id = ?",
            (number << SEQ_BITS | seq & _SEQ_MASK,),
        ).fetchone()
        return None if row is None else _message(row)

    def existing(self, number: int, seqs: Iterable[int]) -> set[int]:
        """Return those of ``seqs`` that are in the backlog."""
        return {seq for seq in seqs if self.find(number, seq) is not None}

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take rows out of a backlog; ``retain`` keeps them for a later seek."""
        runs = list(_runs(number << SEQ_BITS, seqs))
        if retain:
            self._write_many(
                "INSERT OR REPLACE INTO acknowledged"
                " SELECT * FROM backlog WHERE id BETWEEN ? AND ?",
                runs,
            )
        self._write_many("DELETE FROM backlog WHERE id BETWEEN ? AND ?", runs)

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        if messages:
            self._write_many(
                "UPDATE backlog SET attempts = ?, generation = ?, due_us = ? WHERE id = ?",
                [
                    (m.attempts, m.generation, m.due_us, number << SEQ_BITS | m.seq)
                    for m in messages
                ],
            )

    # Leases: a log of what was leased until when. The last entry of a message counts.

    def record_leases(self, number: int, deadline_us: int, messages: Sequence[Message]) -> None:
        """Append to the log; one row for all messages of one response."""
        entries = array("q")
        for message in messages:
            entries.append(message.seq)
            entries.append(message.generation)
        self._write(
            "INSERT INTO lease VALUES (?, ?, ?, ?)",
            (self._next_position, number, deadline_us, entries.tobytes()),
        )
        self._next_position += 1

    def forget_leases(self, before_us: int) -> None:
        """Drop entries whose deadline is past; what they say has been written into the rows."""
        if self._scalar("SELECT EXISTS (SELECT 1 FROM lease WHERE deadline_us < ?)", before_us):
            self._write("DELETE FROM lease WHERE deadline_us < ?", (before_us,))

    def read_leases(self) -> Mapping[int, Mapping[int, list[Message]]]:
        """Return what was leased when the server ended, ``{number: {deadline_us: messages}}``."""
        last: dict[tuple[int, int], tuple[int, int]] = {}
        for number, deadline_us, blob in self._connection.execute(
            "SELECT number, deadline_us, entries FROM lease ORDER BY position"
        ):
            entries = array("q", blob)
            for seq, generation in zip(entries[::2], entries[1::2], strict=True):
                last[number, seq] = (deadline_us, generation)
        leases: dict[int, dict[int, list[Message]]] = {}
        for (number, seq), (deadline_us, generation) in last.items():
            message = self.find(number, seq)
            # Another generation: it has been redelivered, or sought, since.
            if message is not None and message.generation == generation:
                leases.setdefault(number, {}).setdefault(deadline_us, []).append(message)
        return leases

    # Whole backlogs

    def drop_backlog(self, number: int) -> None:
        """Delete all messages of a backlog, acknowledged ones too, and its leases."""
        bounds = _range(number, 0)
        self._write("DELETE FROM backlog WHERE id BETWEEN ? AND ?", bounds)
        self._write("DELETE FROM acknowledged WHERE id BETWEEN ? AND ?", bounds)
        self._write("DELETE FROM lease WHERE number = ?", (number,))

    def trim(self, number: int, before_us: int, skip: Iterable[int] = ()) -> int:
        """Delete what was published before a time, leased messages aside; return how many."""
        low, _ = _range(number, 0)
        bounds = (low, self._first_since(number, before_us, "backlog") - 1)
        leased = [(low | seq) for seq in skip]
        kept = [row for row in leased if bounds[0] <= row <= bounds[1]]
        removed = self._write(
            "DELETE FROM backlog WHERE id BETWEEN ? AND ?"
            + (f" AND id NOT IN ({','.join(map(str, kept))})" if kept else ""),
            bounds,
        )
        end = self._first_since(number, before_us, "acknowledged") - 1
        removed += self._write("DELETE FROM acknowledged WHERE id BETWEEN ? AND ?", (low, end))
        return removed

    def acknowledge_before(self, number: int, time_us: int, *, retain: bool) -> None:
        """Remove what was published before a time."""
        bounds = (_range(number, 0)[0], self._first_since(number, time_us, "backlog") - 1)
        if retain:
            self._write(
                "INSERT OR REPLACE INTO acknowledged"
                " SELECT * FROM backlog WHERE id BETWEEN ? AND ?",
                bounds,
            )
        self._write("DELETE FROM backlog WHERE id BETWEEN ? AND ?", bounds)

    def restore_since(self, number: int, time_us: int, generation: int) -> None:
        """Make retained acknowledged messages available that were published at a time or later."""
        bounds = (self._first_since(number, time_us, "acknowledged"), _range(number, 0)[1])
        self._write(
            f"INSERT OR IGNORE INTO backlog ({_COLUMNS})"
            f" SELECT id, published_us, 0, {generation:d}, 0, key, body FROM acknowledged"
            " WHERE id BETWEEN ? AND ?",
            bounds,
        )
        self._write("DELETE FROM acknowledged WHERE id BETWEEN ? AND ?", bounds)

    def copy_backlog(self, source: int, target: int) -> None:
        """Copy a backlog's unacknowledged messages (for a snapshot)."""
        delta = (target - source) << SEQ_BITS
        self._write(
            f"INSERT OR IGNORE INTO backlog ({_COLUMNS})"
            f" SELECT id + {delta:d}, published_us, 0, 0, 0, key, body FROM backlog"
            " WHERE id BETWEEN ? AND ?",
            _range(source, 0),
        )

    def scan(self, number: int, since_us: int) -> Iterator[tuple[int, int, str | None, bytes]]:
        """Yield ``(seq, published_us, key, body)`` of a backlog in order, a page at a time."""
        after = (self._first_since(number, since_us, "backlog") & _SEQ_MASK) - 1
        while True:
            page, more = self.read_page(number, after, 1000, 4 << 20)
            for message in page:
                assert message.body is not None
                yield message.seq, message.published_us, message.key, message.body
            if not more:
                return
            after = page[-1].seq

    def insert_missing(
        self, number: int, rows: Iterable[tuple[int, int, str | None, bytes]], generation: int
    ) -> None:
        """Add messages to a backlog that does not have them."""
        self._write_many(
            f"INSERT OR IGNORE INTO backlog ({_COLUMNS}) VALUES (?, ?, 0, ?, 0, ?, ?)",
            (
                (number << SEQ_BITS | seq, published_us, generation, key, body)
                for seq, published_us, key, body in rows
            ),
        )

    def oldest_us(self, number: int) -> int | None:
        """Return when the oldest message of a backlog was published."""
        row = self._connection.execute(
            "SELECT published_us FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
            _range(number, 0),
        ).fetchone()
        return None if row is None else int(row[0])

    def newest_us(self, number: int) -> int:
        """Return when the newest message of a backlog was published; 0 for none."""
        row = self._connection.execute(
            "SELECT published_us FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
            _range(number, 0),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def count(self, number: int) -> int:
        """Return how many messages a backlog has; reads all its keys."""
        return self._scalar(
            "SELECT count(*) FROM backlog WHERE id BETWEEN ? AND ?", *_range(number, 0)
        )

    # Internals

    def _first_since(self, number: int, time_us: int, table: str) -> int:
        """Return the first row key published at ``time_us`` or later, by binary search.

        Publish times never go down within a backlog, so no index on them is needed.
        """
        low, high = _range(number, 0)
        query = (
            f"SELECT id, published_us FROM {table}"  # one of two constants
            " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
        )
        end = high + 1
        while low < end:
            middle = (low + end) // 2
            row = self._connection.execute(query, (middle, high)).fetchone()
            if row is None or row[1] >= time_us:
                end = middle
            else:
                low = row[0] + 1
        return low

    def _initialize(self, now_us: int) -> None:
        self._set_meta("token", secrets.token_hex(3))
        # 17 digits, as the service's ids have; two files made a second apart don't meet before
        # the first has had ten million messages.
        self._set_meta("id_base", now_us // 1_000_000 * 10_000_000)
        self._set_meta("next_seq", 1)
        self._set_meta("next_number", 1)
        self.commit()

    def _meta(self, key: str) -> object:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _set_meta(self, key: str, value: str | int) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _scalar(self, query: str, *parameters: int) -> int:
        return int(self._connection.execute(query, parameters).fetchone()[0])

    def _write(self, statement: str, parameters: Sequence[str | int | bytes]) -> int:
        self._begin()
        return self._connection.execute(statement, parameters).rowcount

    def _write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._begin()
        self._connection.executemany(statement, rows)  # type: ignore[arg-type]  # our own tuples

    def _begin(self) -> None:
        if not self._in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True


def _open(path: Path | str) -> sqlite3.Connection:
    """Open or create a data file; a damaged, newer or foreign one is refused as it is."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA cache_size = -16384")
        # 16 MB of log between checkpoints: a checkpoint syncs, and blocks for that long.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(
            f"The data file {path} can't be read ({error}); it was not changed."
        ) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path | str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty and not version and not application:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        return
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is not a data file of convotic_emulator; it was not changed.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); it was not changed. Use that version, or another data folder."
        )
    size = connection.execute("PRAGMA page_count").fetchone()[0] * 4096
    if size <= _CHECKED_BYTES:
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise StoreError(f"The data file {path} is damaged ({problem}); it was not changed.")


def _message(row: tuple[int, int, int, int, int, str | None, bytes | int]) -> Message:
    """Build a message from a row; where the data was not selected its length stands instead."""
    identifier, published_us, attempts, generation, due_us, key, body = row
    data = None if isinstance(body, int) else body
    size = body if isinstance(body, int) else len(body)
    message = Message(identifier & _SEQ_MASK, published_us, key, size, data)
    message.attempts = attempts
    message.generation = generation
    message.due_us = due_us
    return message


def _range(number: int, first_seq: int) -> tuple[int, int]:
    return number << SEQ_BITS | first_seq, number << SEQ_BITS | _SEQ_MASK


def _runs(base: int, seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Join neighbouring numbers into ranges: one statement instead of one for each row."""
    ordered = sorted(seqs)
    start = previous = ordered[0] if ordered else 0
    for seq in ordered[1:]:
        if seq != previous + 1:
            yield base | start, base | previous
            start = seq
        previous = seq
    if ordered:
        yield base | start, base | previous
