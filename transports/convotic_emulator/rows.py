"""Backlogs as rows: the messages of subscriptions, snapshots and retaining topics.

All are in one table whose key is ``number << 40 | seq``: one B-tree, in which a backlog is a range
in publish order, so that the next page and a run of acknowledged rows are neighbours. A body is
stored once for each subscription: that costs disk for a fan-out, and saves every join, reference
count and sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_emulator.database import Database
from convotic_emulator.lease import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["BacklogRows"]

#: Bits of a message number within a row key: 10^12 messages, 8 million backlogs.
SEQ_BITS = 40
_SEQ_MASK = (1 << SEQ_BITS) - 1

_SCAN_MESSAGES = 1000
_SCAN_BYTES = 4 * 1024 * 1024
#: Some milliseconds of work.
_SLICE_MESSAGES = 2000

_INSERT = "INSERT INTO backlog VALUES (?, ?, 0, 0, 0, ?, ?)"
_INSERT_MISSING = "INSERT OR IGNORE INTO backlog VALUES (?, ?, 0, ?, 0, ?, ?)"
_COPY = (
    "INSERT OR IGNORE INTO backlog SELECT id + ?, published_us, 0, 0, 0, key, body FROM backlog"
    " WHERE id BETWEEN ? AND ?"
)
_DELETE = "DELETE FROM backlog WHERE id BETWEEN ? AND ?"
_RETAIN = "INSERT OR REPLACE INTO acknowledged SELECT * FROM backlog WHERE id BETWEEN ? AND ?"
_RESTORE = (
    "INSERT OR IGNORE INTO backlog SELECT id, published_us, 0, ?, 0, key, body FROM acknowledged"
    " WHERE id BETWEEN ? AND ?"
)
_FORGET = "DELETE FROM acknowledged WHERE id BETWEEN ? AND ?"
_FORGET_RESTORED = (
    "DELETE FROM acknowledged WHERE id BETWEEN ? AND ?"
    " AND EXISTS (SELECT 1 FROM backlog WHERE backlog.id = acknowledged.id)"
)
_RETAIN_OTHERS = (
    "INSERT OR REPLACE INTO acknowledged SELECT * FROM backlog WHERE id BETWEEN ? AND ?"
    " AND NOT EXISTS (SELECT 1 FROM backlog AS kept WHERE kept.id = backlog.id + ?)"
)
_DELETE_OTHERS = (
    "DELETE FROM backlog WHERE id BETWEEN ? AND ?"
    " AND NOT EXISTS (SELECT 1 FROM backlog AS kept WHERE kept.id = backlog.id + ?)"
)
_PAGE = "SELECT * FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
_FIND = (
    "SELECT id, published_us, attempts, generation, due_us, key, length(body) FROM backlog"
    " WHERE id = ?"
)
_PAGE_OF_KEY = (
    "SELECT id, published_us, attempts, generation, due_us, key, length(body) FROM backlog"
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
    "backlog": "SELECT id FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
    "acknowledged": "SELECT id FROM acknowledged WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
}
_NEWEST = "SELECT published_us FROM backlog WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"


class BacklogRows(Database):
    """The rows of all backlogs, by the backlog's number and the message's seq."""

    def append(self, number: int, entries: Iterable[tuple[int, int, str | None, bytes]]) -> None:
        """Add messages to a backlog: ``(seq, published_us, key, body)``."""
        base = number << SEQ_BITS
        self.write_many(
            _INSERT, [(base | seq, at_us, key, body) for seq, at_us, key, body in entries]
        )

    def read_page(
        self, number: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return the next rows with their data, and whether there may be more after them."""
        rows = self.read(_PAGE, (*_range(number, after_seq + 1), max_messages))
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
        rows = self.read(_PAGE_OF_KEY, (key, low, number << SEQ_BITS | to_seq, limit))
        return [_message(row) for row in rows]

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        bodies: dict[int, bytes] = {}
        for seq in seqs:
            row = self.read(
                "SELECT body FROM backlog WHERE id = ?", (number << SEQ_BITS | seq,)
            ).fetchone()
            if row is not None:
                bodies[seq] = row[0]
        return bodies

    def find(self, number: int, seq: int) -> Message | None:
        """Return one row without its data."""
        row = self.read(_FIND, (number << SEQ_BITS | seq & _SEQ_MASK,)).fetchone()
        return None if row is None else _message(row)

    def existing(self, number: int, seqs: Iterable[int]) -> set[int]:
        """Return those of ``seqs`` that are in the backlog."""
        return {seq for seq in seqs if self.find(number, seq) is not None}

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take rows out of a backlog; ``retain`` keeps them for a later seek."""
        runs = list(_runs(number << SEQ_BITS, seqs))
        if retain:
            self.write_many(_RETAIN, runs)
        self.write_many(_DELETE, runs)

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        if messages:
            base = number << SEQ_BITS
            self.write_many(
                _UPDATE, [(m.attempts, m.generation, m.due_us, base | m.seq) for m in messages]
            )

    def drop_backlog(self, number: int) -> None:
        """Delete all messages of a backlog, acknowledged ones too."""
        self.write(_DELETE, _range(number, 0))
        self.write(_FORGET, _range(number, 0))

    def drop_slice(self, number: int) -> int:
        """Delete some thousand messages of a backlog; return how many."""
        dropped = 0
        for table in ("backlog", "acknowledged"):
            rows = self.read(_SLICE[table], (*_range(number, 0), _SLICE_MESSAGES)).fetchall()
            dropped += len(rows)
            if rows:
                statement = _DELETE if table == "backlog" else _FORGET
                self.write(statement, (rows[0][0], rows[-1][0]))
        return dropped

    def trim(self, number: int, before_us: int, leased: Iterable[int] = ()) -> None:
        """Delete what was published before a time, leased messages aside."""
        low, _ = _range(number, 0)
        end = self._first_since(number, before_us, "acknowledged") - 1
        if end >= low:
            self.write(_FORGET, (low, end))
        end = self._first_since(number, before_us, "backlog") - 1
        if end < low:
            return
        for row in sorted(low | seq for seq in leased):
            if low <= row <= end:
                self.write(_DELETE, (low, row - 1))
                low = row + 1
        self.write(_DELETE, (low, end))

    def acknowledge_before(self, number: int, time_us: int, *, retain: bool) -> None:
        """Remove what was published before a time."""
        bounds = (_range(number, 0)[0], self._first_since(number, time_us, "backlog") - 1)
        if retain:
            self.write(_RETAIN, bounds)
        self.write(_DELETE, bounds)

    def acknowledge_others(self, number: int, kept: int, *, retain: bool) -> None:
        """Remove what is not in the backlog ``kept`` (a snapshot's)."""
        parameters = (*_range(number, 0), (kept - number) << SEQ_BITS)
        if retain:
            self.write(_RETAIN_OTHERS, parameters)
        self.write(_DELETE_OTHERS, parameters)

    def restore_since(self, number: int, time_us: int, generation: int) -> None:
        """Make retained acknowledged messages available that were published at a time or later."""
        bounds = (self._first_since(number, time_us, "acknowledged"), _range(number, 0)[1])
        self.write(_RESTORE, (generation, *bounds))
        self.write(_FORGET, bounds)

    def copy_backlog(self, source: int, target: int) -> None:
        """Copy a backlog's unacknowledged messages (for a snapshot)."""
        self.write(_COPY, ((target - source) << SEQ_BITS, *_range(source, 0)))

    def insert_missing(
        self, number: int, rows: Iterable[tuple[int, int, str | None, bytes]], generation: int
    ) -> None:
        """Add messages to a backlog that does not have them."""
        base = number << SEQ_BITS
        self.write_many(
            _INSERT_MISSING,
            ((base | seq, at_us, generation, key, body) for seq, at_us, key, body in rows),
        )
        self.write(_FORGET_RESTORED, _range(number, 0))

    def scan(self, number: int, since_us: int) -> Iterator[tuple[int, int, str | None, bytes]]:
        """Yield ``(seq, published_us, key, body)`` of a backlog in order, a page at a time."""
        after = (self._first_since(number, since_us, "backlog") & _SEQ_MASK) - 1
        more = True
        while more:
            page, more = self.read_page(number, after, _SCAN_MESSAGES, _SCAN_BYTES)
            for message in page:
                assert message.body is not None
                yield message.seq, message.published_us, message.key, message.body
                after = message.seq

    def oldest_us(self, number: int) -> int | None:
        """Return when the oldest message of a backlog was published."""
        row = self.read(_SEARCH["backlog"], _range(number, 0)).fetchone()
        return None if row is None else int(row[1])

    def newest_us(self, number: int) -> int:
        """Return when the newest message of a backlog was published; 0 for none."""
        row = self.read(_NEWEST, _range(number, 0)).fetchone()
        return 0 if row is None else int(row[0])

    def count(self, number: int) -> int:
        """Return how many messages a backlog has; reads all its keys."""
        query = "SELECT count(*) FROM backlog WHERE id BETWEEN ? AND ?"
        return int(self.read(query, _range(number, 0)).fetchone()[0])

    def _first_since(self, number: int, time_us: int, table: str) -> int:
        """Return the first row key published at ``time_us`` or later, by binary search.

        Publish times never go down within a backlog, so no index on them is needed.
        """
        low, high = _range(number, 0)
        row = self.read(_SEARCH[table], (low, high)).fetchone()
        if row is None or row[1] >= time_us:
            return low  # the usual case when only the past is looked for
        end = high + 1
        while low < end:
            middle = (low + end) // 2
            row = self.read(_SEARCH[table], (middle, high)).fetchone()
            if row is None or row[1] >= time_us:
                end = middle
            else:
                low = row[0] + 1
        return low


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
