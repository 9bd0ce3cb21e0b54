"""Seeks and snapshots as rows: what is done to whole backlogs, a slice at a time.

A :class:`Seek` is written down before its first slice and taken out with its last: a server that
was killed in between finishes it when it starts again. Each slice may be done twice. A copy is only
recorded as begun: it was never confirmed, so the next start drops it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from convotic_emulator.storage.datafile import checksum
from convotic_emulator.storage.packs import SEQ_BITS, SEQ_MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convotic_emulator.storage.backlogs import Backlogs
    from convotic_emulator.storage.counts import Counts
    from convotic_emulator.storage.database import Database

__all__ = ["Seek", "Seeks"]

_PAGE_MESSAGES = 1000
_PAGE_BYTES = 4 * 1024 * 1024

_INSERT_MISSING = "INSERT OR IGNORE INTO backlog VALUES (?, ?, 0, 0, 0, ?, ?, ?)"
_COPY = (
    "INSERT OR IGNORE INTO backlog SELECT id + ?, published_us, 0, 0, 0, key, body, checksum"
    " FROM backlog"
    " WHERE id BETWEEN ? AND ?"
)
_DELETE = "DELETE FROM backlog WHERE id BETWEEN ? AND ?"
_RETAIN = "INSERT OR REPLACE INTO acknowledged SELECT * FROM backlog WHERE id BETWEEN ? AND ?"
_RESTORE = (
    "INSERT OR IGNORE INTO backlog SELECT id, published_us, 0, 0, 0, key, body, checksum"
    " FROM acknowledged"
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


@dataclass(frozen=True, slots=True)
class Seek:
    """A seek in progress. It concerns messages up to ``last_seq``, not later ones."""

    number: int
    last_seq: int
    #: Whether what it acknowledges is kept for a later seek.
    retain: bool
    #: To this time; or, if None, to the snapshot ``source``.
    time_us: int | None
    #: The backlog it brings messages back from: a snapshot's, a retaining topic's, or 0 for none.
    source: int


class Seeks:
    """Slices of seeks and of copies. Each generator yields where others should have their turn."""

    def __init__(self, database: Database, counts: Counts, backlogs: Backlogs) -> None:
        self._database = database
        self._counts = counts
        self._backlogs = backlogs

    def begin(self, seek: Seek) -> None:
        """Write down that a seek must be finished."""
        self._database.write(
            "INSERT OR REPLACE INTO resource VALUES (?, 'seek', ?, ?, 0, 0)",
            (f"seek/{seek.number}", seek.number, json.dumps(asdict(seek)).encode()),
        )

    def end(self, number: int) -> None:
        """Forget the seek of a backlog, done or not."""
        self._database.write("DELETE FROM resource WHERE name = ?", (f"seek/{number}",))

    def unfinished(self) -> list[Seek]:
        """Return the seeks of an earlier run."""
        rows = self._database.read("SELECT body FROM resource WHERE kind = 'seek'")
        return [Seek(**json.loads(row[0])) for row in rows]

    def run(self, seek: Seek, is_wanted: Callable[[bytes], bool]) -> Iterator[None]:
        """Acknowledge what the seek leaves behind, then bring back what it wants."""
        while self._backlogs.packs.unpack_next(seek.number, seek.last_seq):
            yield
        since_us = 0 if seek.time_us is None else seek.time_us
        if seek.time_us is None:
            yield from self._acknowledge_others(seek)
        else:
            yield from self._acknowledge_before(seek, since_us)
            yield from self._restore(seek, since_us)
        if seek.source:
            yield from self._insert_missing(seek, since_us, is_wanted)

    def copy(self, source: int, target: int, last_seq: int) -> Iterator[None]:
        """Copy a backlog's messages (for a snapshot)."""
        while self._backlogs.packs.unpack_next(source, last_seq):
            yield
        base, end = source << SEQ_BITS, source << SEQ_BITS | last_seq
        while (bounds := self._backlogs.slice("backlog", base, end)) is not None:
            shift = (target - source) << SEQ_BITS
            self._counts.add(target, self._database.write(_COPY, (shift, *bounds)))
            base = bounds[1] + 1
            yield

    def begin_copy(self, number: int) -> None:
        """Record that a snapshot is not complete: without :meth:`end_copy` it ends at a restart."""
        self._database.write(
            "INSERT INTO resource VALUES (?, 'copy', ?, x'', 0, 0)", (f"copy/{number}", number)
        )

    def end_copy(self, number: int) -> None:
        """Record that a snapshot is complete, or gone."""
        self._database.write("DELETE FROM resource WHERE name = ?", (f"copy/{number}",))

    def unfinished_copies(self) -> set[int]:
        """Return the numbers of snapshots of an earlier run that are not complete."""
        rows = self._database.read("SELECT number FROM resource WHERE kind = 'copy'")
        return {row[0] for row in rows}

    def _acknowledge_before(self, seek: Seek, time_us: int) -> Iterator[None]:
        base = seek.number << SEQ_BITS
        end = base + min(self._backlogs.last_before(seek.number, time_us), seek.last_seq)
        while (bounds := self._backlogs.slice("backlog", base, end)) is not None:
            if seek.retain:
                self._database.write(_RETAIN, bounds)
            self._counts.add(seek.number, -self._database.write(_DELETE, bounds))
            yield

    def _acknowledge_others(self, seek: Seek) -> Iterator[None]:
        base = seek.number << SEQ_BITS
        end, shift = base | seek.last_seq, (seek.source - seek.number) << SEQ_BITS
        while (bounds := self._backlogs.slice("backlog", base, end)) is not None:
            if seek.retain:
                self._database.write(_RETAIN_OTHERS, (*bounds, shift))
            self._counts.add(seek.number, -self._database.write(_DELETE_OTHERS, (*bounds, shift)))
            base = bounds[1] + 1
            yield

    def _restore(self, seek: Seek, time_us: int) -> Iterator[None]:
        base = seek.number << SEQ_BITS
        low = base + self._backlogs.last_before(seek.number, time_us, "acknowledged") + 1
        while (
            bounds := self._backlogs.slice("acknowledged", low, base | seek.last_seq)
        ) is not None:
            self._counts.add(seek.number, self._database.write(_RESTORE, bounds))
            self._database.write(_FORGET, bounds)
            yield

    def _insert_missing(
        self, seek: Seek, time_us: int, is_wanted: Callable[[bytes], bool]
    ) -> Iterator[None]:
        base, after = seek.number << SEQ_BITS, self._backlogs.last_before(seek.source, time_us)
        more = True
        while more and after < seek.last_seq:
            page, more = self._backlogs.read_page(seek.source, after, _PAGE_MESSAGES, _PAGE_BYTES)
            rows = [
                (
                    *(base | m.seq, m.published_us, m.key),
                    *(m.body, checksum(m.seq, m.body or b"")),
                )
                for m in page
                if m.seq <= seek.last_seq and is_wanted(m.body or b"")
            ]
            if rows:
                self._counts.add(seek.number, self._database.write_many(_INSERT_MISSING, rows))
                self._database.write(_FORGET_RESTORED, (rows[0][0], rows[-1][0]))
            after = page[-1].seq if page else SEQ_MASK
            yield
