"""Backlogs as rows: the messages of subscriptions, snapshots and retaining topics.

All are in one table whose key is ``number << 40 | seq``: one B-tree, in which a backlog is a range
in publish order, so that the next page and a run of acknowledged rows are neighbours. Requests of
many messages are packs in another table (:mod:`convotic_emulator.storage.packs`) until something
concerns one of their messages. A body is stored once for each subscription: that costs disk for a
fan-out, and saves every join, reference count and sweep.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from convotic_emulator.storage.datafile import checksum
from convotic_emulator.storage.message import Message
from convotic_emulator.storage.packs import SEQ_BITS, SEQ_MASK, Packs, key_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from convotic_emulator.storage.counts import Counts
    from convotic_emulator.storage.database import Database
    from convotic_emulator.storage.packs import Pack

__all__ = ["Backlogs"]

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
        self.packs = Packs(database)

    def append_pack(self, number: int, pack: Pack) -> None:
        """Add what a request has published to a backlog."""
        self._counts.add(number, self.packs.append(number, pack))

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
        """Return the next messages with their data, and whether there may be more after them."""
        while True:
            low, high = key_range(number, after_seq + 1)
            pack = self.packs.next_key(number, after_seq)
            page, more = self._read_rows((low, pack or high, max_messages), max_bytes)
            if page or pack is None:
                return page, more or pack is not None
            page, after_seq = self.packs.read_page(pack, after_seq, max_messages, max_bytes)
            if page:
                return page, self.has_after(number, page[-1].seq)

    def _read_rows(
        self, parameters: tuple[int, int, int], max_bytes: int
    ) -> tuple[list[Message], bool]:
        rows = self._database.read(_PAGE, parameters)
        page: list[Message] = []
        size = 0
        for row in rows:
            page.append(_message(row))
            size += page[-1].size
            if size >= max_bytes:
                rows.close()
                return page, True
        return page, len(page) == parameters[2]

    def has_after(self, number: int, seq: int) -> bool:
        """Return whether a backlog has a message, or a pack that had one, behind another."""
        rows = self._database.read(_SEARCH["backlog"], key_range(number, seq + 1))
        return rows.fetchone() is not None or self.packs.next_key(number, seq) is not None

    def read_key(
        self, number: int, key: str, after_seq: int, to_seq: int, limit: int
    ) -> list[Message]:
        """Return rows of one ordering key without their data, in order."""
        low, _ = key_range(number, after_seq + 1)
        rows = self._database.read(_PAGE_OF_KEY, (key, low, number << SEQ_BITS | to_seq, limit))
        return [_message(row) for row in rows]

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        self.packs.unpack(number, seqs)
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
        seq &= SEQ_MASK
        row = self._database.read(_FIND, (number << SEQ_BITS | seq,)).fetchone()
        if row is None and self.packs.unpack(number, [seq]):
            return self.find(number, seq)
        return None if row is None else _message(row)

    def existing(self, number: int, seqs: Iterable[int]) -> set[int]:
        """Return those of ``seqs`` that are in the backlog."""
        wanted = set(seqs)
        found = {seq for here in self.packs.unsettled(number, wanted).values() for seq in here}
        return found | {s for s in wanted - found if self.find(number, s) is not None}

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take messages out of a backlog; ``retain`` keeps them for a later seek."""
        if retain:
            self.packs.unpack(number, seqs)
        else:
            seqs, settled = self.packs.settle(number, seqs)
            self._counts.add(number, -settled)
        runs = list(_runs(number << SEQ_BITS, seqs))
        if retain:
            self._database.write_many(_RETAIN, runs)
        self._counts.add(number, -self._database.write_many(_DELETE, runs))

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        if messages:
            self.packs.unpack(number, [message.seq for message in messages])
            base = number << SEQ_BITS
            self._database.write_many(
                _UPDATE, [(m.attempts, m.generation, m.due_us, base | m.seq) for m in messages]
            )

    def drop_slice(self, number: int) -> int:
        """Delete some messages of a dropped backlog; return how much."""
        dropped = self.packs.drop_next(number)
        for table, statement in (("backlog", _DELETE), ("acknowledged", _FORGET)):
            bounds = self.slice(table, *key_range(number))
            if bounds is not None:
                dropped += self._database.write(statement, bounds)
        return dropped

    def trim(self, number: int, before_us: int, leased: Iterable[int] = ()) -> bool:
        """Delete some of what was published before a time, leased messages aside.

        Returns whether there may be more.
        """
        low, _ = key_range(number)
        leased = set(leased)
        if trimmed := self.packs.trim_next(number, before_us, leased):
            self._counts.add(number, -trimmed)
            return True
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
        row = self._database.read(_SEARCH["backlog"], key_range(number)).fetchone()
        packed_us = self.packs.oldest_us(number)
        if row is None or (packed_us is not None and packed_us < row[1]):
            return packed_us
        return int(row[1])

    def newest_us(self, number: int) -> int:
        """Return when the newest message of a backlog was published; 0 for none."""
        row = self._database.read(_NEWEST, key_range(number)).fetchone()
        return max(0 if row is None else int(row[0]), self.packs.newest_us(number))

    def last_before(self, number: int, time_us: int, table: str = "backlog") -> int:
        """Return a seq up to which all rows were published before a time."""
        since = self._first_since(number, time_us, table)
        if table == "backlog":
            since = self.packs.first_since(number, time_us, since)
        return (since & SEQ_MASK) - 1

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
        low, high = key_range(number)
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
    message = Message(identifier & SEQ_MASK, published_us, key, size, data)
    message.attempts = attempts
    message.generation = generation
    message.due_us = due_us
    return message


def _checked(row: int, body: bytes, expected: int) -> bytes:
    """Return a body that is as it was written; sqlite3.DatabaseError if it is not."""
    if checksum(row, body) != expected:
        raise sqlite3.DatabaseError(f"the message in row {row} is damaged")
    return body


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
