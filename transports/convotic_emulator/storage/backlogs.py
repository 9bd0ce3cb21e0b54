"""Backlogs as rows: the messages of subscriptions, snapshots and retaining topics.

All are in one table whose key is ``number << 40 | seq``: one B-tree, in which a backlog is a range
in publish order, so that the next page and a run of acknowledged rows are neighbours. A body is
stored once for each subscription: that costs disk for a fan-out, and saves every join, reference
count and sweep.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from convotic_emulator.storage.datafile import checksum
from convotic_emulator.storage.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from convotic_emulator.storage.counts import Counts
    from convotic_emulator.storage.database import Database

__all__ = ["SEQ_BITS", "Backlogs"]

#: Bits of a message number within a row key: 10^12 messages, 8 million backlogs.
SEQ_BITS = 40
_SEQ_MASK = (1 << SEQ_BITS) - 1

#: Some milliseconds of work: what is done to many rows is done to so many at a time.
_SLICE_MESSAGES = 1000
_SLICE_BYTES = 4 * 1024 * 1024

_INSERT = "INSERT INTO backlog VALUES (?, ?, 0, 0, 0, ?, ?, ?)"
_DELETE = "DELETE FROM backlog WHERE id BETWEEN ? AND ?"
_RETAIN = "INSERT OR REPLACE INTO acknowledged SELECT * FROM backlog WHERE id BETWEEN ? AND ?"
_FORGET = "DELETE FROM acknowledged WHERE id BETWEEN ? AND ?"
_PAGE = "SELECT * FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
_FIND = (
    "SELECT id, published_us, attempts, generation, due_us, key, length(body), 0 FROM backlog"
    " WHERE id = ?"
)
_PAGE_OF_KEY = (
    "SELECT id, published_us, attempts, generation, due_us, key, length(body), 0 FROM backlog"
    " WHERE key = ? AND id BETWEEN ? AND ? ORDER BY id LIMIT ?"
)
_UPDATE = "UPDATE backlog SET attempts = ?, generation = ?, due_us = ? WHERE id = ?"
#: The first row from a key on, for a search by time.
_SEARCH = {
    "backlog": "SELECT id, published_us FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
    "acknowledged": (
        "SELECT id, published_us FROM acknowledged WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
    ),
}
_SLICE = {
    "backlog": (
        "SELECT id, length(body) FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    ),
    "acknowledged": (
        "SELECT id, length(body) FROM acknowledged WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    ),
}
_NEWEST = "SELECT published_us FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"


class Backlogs:
    """The messages of one data file, by the backlog's number and the message's seq."""

    def __init__(self, database: Database, counts: Counts) -> None:
        self._database = database
        self._counts = counts

    def append(self, number: int, entries: Iterable[tuple[int, int, str | None, bytes]]) -> None:
        """Add messages to a backlog: ``(seq, published_us, key, body)``."""
        base = number << SEQ_BITS
        rows = [
            (base | seq, at_us, key, body, checksum(seq, body)) for seq, at_us, key, body in entries
        ]
        self._database.defer_many(_INSERT, rows)
        self._counts.add(number, len(rows))

    def read_page(
        self, number: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return the next rows with their data, and whether there may be more after them."""
        rows = self._database.read(_PAGE, (*_range(number, after_seq + 1), max_messages))
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
        low, _ = _range(number, after_seq + 1)
        rows = self._database.read(_PAGE_OF_KEY, (key, low, number << SEQ_BITS | to_seq, limit))
        return [_message(row) for row in rows]

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        bodies: dict[int, bytes] = {}
        for seq in seqs:
            row = self._database.read(
                "SELECT body, checksum FROM backlog WHERE id = ?", (number << SEQ_BITS | seq,)
            ).fetchone()
            if row is not None:
                bodies[seq] = _checked(seq, *row)
        return bodies

    def find(self, number: int, seq: int) -> Message | None:
        """Return one row without its data."""
        row = self._database.read(_FIND, (number << SEQ_BITS | seq & _SEQ_MASK,)).fetchone()
        return None if row is None else _message(row)

    def existing(self, number: int, seqs: Iterable[int]) -> set[int]:
        """Return those of ``seqs`` that are in the backlog."""
        return {seq for seq in seqs if self.find(number, seq) is not None}

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take rows out of a backlog; ``retain`` keeps them for a later seek."""
        runs = list(_runs(number << SEQ_BITS, seqs))
        if retain:
            self._database.write_many(_RETAIN, runs)
        self._counts.add(number, -self._database.write_many(_DELETE, runs))

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        if messages:
            base = number << SEQ_BITS
            self._database.write_many(
                _UPDATE, [(m.attempts, m.generation, m.due_us, base | m.seq) for m in messages]
            )

    def drop_slice(self, number: int) -> int:
        """Delete some messages of a dropped backlog; return how many."""
        dropped = 0
        for table, statement in (("backlog", _DELETE), ("acknowledged", _FORGET)):
            bounds = self.slice(table, *_range(number, 0))
            if bounds is not None:
                dropped += self._database.write(statement, bounds)
        return dropped

    def trim(self, number: int, before_us: int, leased: Iterable[int] = ()) -> bool:
        """Delete some of what was published before a time, leased messages aside.

        Returns whether there may be more.
        """
        low, _ = _range(number, 0)
        end = (number << SEQ_BITS) + self.last_before(number, before_us, "acknowledged")
        bounds = self.slice("acknowledged", low, end)
        more = bounds is not None and self._database.write(_FORGET, bounds) > 0
        end = (number << SEQ_BITS) + self.last_before(number, before_us)
        for row in [*sorted(low | seq for seq in leased if low | seq <= end), end + 1]:
            bounds = self.slice("backlog", low, row - 1)
            if bounds is not None:
                self._counts.add(number, -self._database.write(_DELETE, bounds))
                return True
            low = row + 1
        return more

    def oldest_us(self, number: int) -> int | None:
        """Return when the oldest message of a backlog was published."""
        row = self._database.read(_SEARCH["backlog"], _range(number, 0)).fetchone()
        return None if row is None else int(row[1])

    def newest_us(self, number: int) -> int:
        """Return when the newest message of a backlog was published; 0 for none."""
        row = self._database.read(_NEWEST, _range(number, 0)).fetchone()
        return 0 if row is None else int(row[0])

    def last_before(self, number: int, time_us: int, table: str = "backlog") -> int:
        """Return a seq up to which all rows were published before a time."""
        return (self._first_since(number, time_us, table) & _SEQ_MASK) - 1

    def slice(self, table: str, low: int, high: int) -> tuple[int, int] | None:
        """Return the first and last key of some neighbouring rows, few enough for one go."""
        if high < low:
            return None
        rows = self._database.read(_SLICE[table], (low, high, _SLICE_MESSAGES)).fetchall()
        size = 0
        for identifier, length in rows:
            size += length
            if size >= _SLICE_BYTES:
                return rows[0][0], identifier
        return (rows[0][0], rows[-1][0]) if rows else None

    def _first_since(self, number: int, time_us: int, table: str) -> int:
        """Return the first row key published at ``time_us`` or later, by binary search.

        Publish times never go down within a backlog, so no index on them is needed.
        """
        low, high = _range(number, 0)
        row = self._database.read(_SEARCH[table], (low, high)).fetchone()
        if row is None or row[1] >= time_us:
            return low  # the usual case when only the past is looked for
        end = high + 1
        while low < end:
            middle = (low + end) // 2
            row = self._database.read(_SEARCH[table], (middle, high)).fetchone()
            if row is None or row[1] >= time_us:
                end = middle
            else:
                low = row[0] + 1
        return low


def _message(row: tuple[int, int, int, int, int, str | None, bytes | int, int]) -> Message:
    """Build a message from a row; where the data was not selected its length stands instead."""
    identifier, published_us, attempts, generation, due_us, key, body, expected = row
    data = None if isinstance(body, int) else _checked(identifier, body, expected)
    size = body if isinstance(body, int) else len(body)
    message = Message(identifier & _SEQ_MASK, published_us, key, size, data)
    message.attempts = attempts
    message.generation = generation
    message.due_us = due_us
    return message


def _checked(row: int, body: bytes, expected: int) -> bytes:
    """Return a body that is as it was written; sqlite3.DatabaseError if it is not."""
    if checksum(row, body) != expected:
        raise sqlite3.DatabaseError(f"the message in row {row} is damaged")
    return body


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
