"""Requests of many messages as one row each: most of them are read, and settled, together.

A row for each message costs five times as much as the message itself. A pack keeps what one request
has published as it came, and a row of bits says which of its messages are settled. Whatever
concerns a single message (a redelivery, a late acknowledgement, a seek) makes rows of the pack
first, see :meth:`Packs.unpack`.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convotic_emulator.storage.datafile import checksum
from convotic_emulator.storage.message import Message
from convotic_emulator.storage.wire import completion, message_ids, publish_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from convotic_emulator.storage.database import Database

__all__ = ["MAX_PACKED", "SEQ_BITS", "SEQ_MASK", "Pack", "Packs", "key_range"]

#: Bits of a message number within a row key: 10^12 messages, 8 million backlogs.
SEQ_BITS = 40
SEQ_MASK = (1 << SEQ_BITS) - 1

#: Messages of one request, at most: so the pack that has a message begins at most this far before.
MAX_PACKED = 1000

_INSERT = "INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROW = "INSERT INTO backlog VALUES (?, ?, 0, 0, 0, NULL, ?, ?)"
_FROM = " FROM pack LEFT JOIN settled USING (id) WHERE id BETWEEN ? AND ? AND last >= ? ORDER BY id"
_NEXT = f"SELECT id{_FROM} LIMIT 1"
_READ = f"SELECT id, last, bits, published_us, seed, checksum, sizes, body{_FROM} LIMIT 1"
_OVERLAPPING = f"SELECT id, last, bits{_FROM}"
_OLDEST = "SELECT published_us, id, last FROM pack WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
_NEWEST = "SELECT published_us FROM pack WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
_SINCE = "SELECT id FROM pack WHERE id BETWEEN ? AND ? AND published_us >= ? ORDER BY id LIMIT 1"
_BEFORE = (
    "SELECT last FROM pack WHERE id BETWEEN ? AND ? AND published_us < ? ORDER BY id DESC LIMIT 1"
)
_NUMBERS = "SELECT DISTINCT id >> 40 FROM pack"  # SEQ_BITS
_SETTLE = "INSERT OR REPLACE INTO settled VALUES (?, ?)"
_DELETE = ("DELETE FROM pack WHERE id = ?", "DELETE FROM settled WHERE id = ?")


def key_range(number: int, first_seq: int = 0) -> tuple[int, int]:
    """Return the first and last row key of a backlog, from a message on."""
    return number << SEQ_BITS | first_seq, number << SEQ_BITS | SEQ_MASK


@dataclass(frozen=True, slots=True)
class Pack:
    """What a request has published: the same in each backlog that has it.

    Message ids come from ``seed``. ``body`` is the messages one after another,
    ``sizes`` says how long each is; id and time are not in them.
    """

    first_seq: int
    published_us: int
    seed: bytes
    checksum: int
    sizes: bytes
    body: bytes

    @classmethod
    def of(cls, first_seq: int, published_us: int, seed: bytes, messages: Sequence[bytes]) -> Pack:
        """Return a pack of serialized messages without ordering keys."""
        sizes = array("I", map(len, messages)).tobytes()
        body = b"".join(messages)
        return cls(first_seq, published_us, seed, checksum(first_seq, body, sizes), sizes, body)

    def messages(self, after_seq: int, settled: int) -> Iterator[Message]:
        """Yield the unsettled messages after ``after_seq``, with their data.

        ``settled`` has a bit for each message of the pack.

        Raises:
            sqlite3.DatabaseError: the pack is not as it was written.
        """
        if checksum(self.first_seq, self.body, self.sizes) != self.checksum:
            raise sqlite3.DatabaseError(f"the messages from {self.first_seq} on are damaged")
        published = publish_time(self.published_us)
        sizes = array("I", self.sizes)
        ids = message_ids(self.seed, self.first_seq, len(sizes))
        end = 0
        for seq, size in enumerate(sizes, self.first_seq):
            start, end = end, end + size
            index = seq - self.first_seq
            if seq > after_seq and not settled >> index & 1:
                body = self.body[start:end] + completion(ids[index], published)
                yield Message(seq, self.published_us, None, len(body), body)


class Packs:
    """The packs of one data file, by the backlog's number."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Backlogs that may have packs: all others cost nothing here.
        self._numbers: set[int] = set()
        self.read()

    def read(self) -> None:
        """Read from the file which backlogs have packs."""
        rows = self._database.read(_NUMBERS)
        self._numbers = {row[0] for row in rows}

    def has(self, number: int) -> bool:
        """Return whether a backlog may have packs."""
        return number in self._numbers

    def append(self, number: int, pack: Pack) -> int:
        """Add a pack to a backlog; return how many messages it has."""
        count = len(array("I", pack.sizes))
        first = number << SEQ_BITS | pack.first_seq
        row = (
            *(first, first + count - 1, pack.published_us, pack.seed),
            *(pack.checksum, pack.sizes, pack.body),
        )
        self._database.defer_many(_INSERT, [row])
        self._numbers.add(number)
        return count

    def next_key(self, number: int, after_seq: int) -> int | None:
        """Return the row key of the next pack that has a message after ``after_seq``."""
        if not self.has(number):
            return None
        low, high = key_range(number, after_seq + 1)
        row = self._database.read(_NEXT, (low - MAX_PACKED, high, low)).fetchone()
        return None if row is None else int(row[0])

    def read_page(
        self, key: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], int]:
        """Return a pack's next unsettled messages with their data, and its last message's seq."""
        pack, settled, last_seq = self._read_pack(key)
        page: list[Message] = []
        for message in pack.messages(after_seq, settled):
            page.append(message)
            max_bytes -= message.size
            if len(page) >= max_messages or max_bytes <= 0:
                break
        return page, last_seq

    def settle(self, number: int, seqs: Sequence[int]) -> tuple[list[int], int]:
        """Take messages out; return those that are in no pack, and how many were taken out."""
        ordered, base = sorted(seqs), number << SEQ_BITS
        others, begin, taken = [], 0, 0
        for first, last, bits in self._overlapping(number, ordered):
            start = bisect_left(ordered, first - base)
            end = bisect_right(ordered, last - base)
            others += ordered[begin:start]
            begin = end
            before = settled = _settled(bits)
            for seq in ordered[start:end]:
                settled |= 1 << (base + seq - first)
            taken += (settled ^ before).bit_count()
            if settled.bit_count() == last - first + 1:
                self._delete(first)
            elif settled != before:
                size = (last - first) // 8 + 1
                self._database.write(_SETTLE, (first, settled.to_bytes(size, "little")))
        return others + ordered[begin:], taken

    def unsettled(self, number: int, seqs: Iterable[int]) -> dict[int, list[int]]:
        """Return those of ``seqs`` that are in packs and not settled, by the packs' row keys."""
        ordered, base = sorted(seqs), number << SEQ_BITS
        found = {}
        for first, last, bits in self._overlapping(number, ordered):
            start = bisect_left(ordered, first - base)
            end = bisect_right(ordered, last - base)
            settled = _settled(bits)
            here = [seq for seq in ordered[start:end] if not settled >> (base + seq - first) & 1]
            if here:
                found[first] = here
        return found

    def unpack(self, number: int, seqs: Iterable[int]) -> bool:
        """Make rows of the packs that have one of some messages; say whether any has."""
        if not self.has(number):
            return False
        found = self.unsettled(number, seqs)
        for first in found:
            self._unpack(first)
        return bool(found)

    def unpack_next(self, number: int, last_seq: int) -> bool:
        """Make rows of the first pack up to a message; False if there is none."""
        oldest = self._oldest(number)
        if oldest is None or oldest[1] & SEQ_MASK > last_seq:
            return False
        self._unpack(oldest[1])
        return True

    def drop_next(self, number: int) -> int:
        """Delete the first pack of a dropped backlog; return whether there was one."""
        oldest = self._oldest(number)
        if oldest is None:
            return 0
        self._delete(oldest[1])
        return 1

    def trim_next(self, number: int, before_us: int, leased: Iterable[int]) -> int:
        """Delete the first pack if it was published before a time; return how many it had left.

        If some of it is leased, it becomes rows.
        """
        oldest = self._oldest(number)
        if oldest is None or oldest[0] >= before_us:
            return 0
        _, first, last = oldest
        base = number << SEQ_BITS
        if any(first <= base | seq <= last for seq in leased):
            self._unpack(first)
            return 0
        row = self._database.read("SELECT bits FROM settled WHERE id = ?", (first,)).fetchone()
        self._delete(first)
        return last - first + 1 - (_settled(row[0]).bit_count() if row else 0)

    def oldest_us(self, number: int) -> int | None:
        """Return when the first pack was published."""
        oldest = self._oldest(number)
        return None if oldest is None else oldest[0]

    def newest_us(self, number: int) -> int:
        """Return when the last pack was published; 0 for none."""
        row = self.has(number) and self._database.read(_NEWEST, key_range(number)).fetchone()
        return int(row[0]) if row else 0

    def first_since(self, number: int, time_us: int, rows_since: int) -> int:
        """Return the first row key since a time, packs included; ``rows_since`` without them."""
        if not self.has(number):
            return rows_since
        parameters = (*key_range(number), time_us)
        before = self._database.read(_BEFORE, parameters).fetchone()
        since = self._database.read(_SINCE, parameters).fetchone()
        found = rows_since if before is None else max(rows_since, before[0] + 1)
        return found if since is None else min(found, since[0])

    def _oldest(self, number: int) -> tuple[int, int, int] | None:
        """Return time, first and last row key of the first pack."""
        if not self.has(number):
            return None
        row: tuple[int, int, int] | None
        row = self._database.read(_OLDEST, key_range(number)).fetchone()
        if row is None:
            self._numbers.discard(number)
        return row

    def _overlapping(
        self, number: int, ordered: Sequence[int]
    ) -> list[tuple[int, int, bytes | None]]:
        """Return first and last key, and the settled messages, of packs between two messages."""
        if not (ordered and self.has(number)):
            return []
        low, high = number << SEQ_BITS | ordered[0], number << SEQ_BITS | ordered[-1]
        return self._database.read(_OVERLAPPING, (low - MAX_PACKED, high, low)).fetchall()

    def _unpack(self, first: int) -> None:
        pack, settled, _ = self._read_pack(first)
        base = first & ~SEQ_MASK
        rows = [
            (base | m.seq, m.published_us, m.body, checksum(m.seq, m.body or b""))
            for m in pack.messages(0, settled)
        ]
        self._database.write_many(_INSERT_ROW, rows)
        self._delete(first)

    def _read_pack(self, first: int) -> tuple[Pack, int, int]:
        """Return a pack, the bits of what is settled, and the last message's seq."""
        row = self._database.read(_READ, (first, first, first)).fetchone()
        key, last, bits, published_us, seed, expected, sizes, body = row
        pack = Pack(key & SEQ_MASK, published_us, seed, expected, sizes, body)
        return pack, _settled(bits), last & SEQ_MASK

    def _delete(self, first: int) -> None:
        for statement in _DELETE:
            self._database.write(statement, (first,))
        self._oldest(first >> SEQ_BITS)  # whether that was the last


def _settled(bits: bytes | None) -> int:
    return int.from_bytes(bits or b"", "little")
