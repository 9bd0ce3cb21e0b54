"""What survives a restart, as one object: message numbers, resources, backlogs and leases."""

from __future__ import annotations

import secrets
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convotic_emulator.errors import StoreError
from convotic_emulator.storage.database import MEMORY
from convotic_emulator.storage.seeks import ReplayRows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from convotic_emulator.engine.lease import Message

__all__ = ["MEMORY", "ResourceRow", "Store"]

#: Message numbers are reserved in blocks, so that none is used twice after a crash.
_SEQ_BLOCK = 100_000

_INSERT_LEASE = "INSERT INTO lease VALUES (?, ?, ?, ?)"


@dataclass(slots=True)
class ResourceRow:
    """A topic, subscription, snapshot or schema as stored; ``body`` is its serialized message."""

    name: str
    #: ``topic``, ``subscription``, ``snapshot`` or ``schema``.
    kind: str
    number: int
    body: bytes
    created_us: int
    #: How many times the subscription was sought: makes ack ids of before it void.
    seeks: int = 0


class Store(ReplayRows):
    """One data file. Implements the state machine's Journal.

    Args:
        path: the file, or ``MEMORY``.
        fsync: survive power loss too, at the cost of a sync for each commit.
        now_us: the time, for a new file.
    """

    def __init__(self, path: Path | str, *, fsync: bool = False, now_us: int = 0) -> None:
        super().__init__(path, fsync=fsync)
        #: The next number; all before these are used and committed; reserved; reserved in the file.
        self._next_seq = self._uncommitted_seq = int(self.read_meta("next_seq") or 1)
        self._reserved_seq = self._durable_seq = self._next_seq
        if self.read_meta("token") is None:
            if self.resources():
                raise StoreError(f"The data file {path} is damaged (token); it was not changed.")
            self._initialize(now_us)
        #: Part of every ack id: those of another data file are refused.
        self.token = str(self.read_meta("token"))
        #: Added to a message's number to give its id: ids differ between data files.
        self.id_base = int(self.read_meta("id_base") or 0)
        row = self.read("SELECT coalesce(max(position), 0) FROM lease").fetchone()
        self._next_position = int(row[0]) + 1

    def commit(self) -> None:
        """Make all that was written durable."""
        super().commit()
        self._uncommitted_seq = self._next_seq
        self._durable_seq = self._reserved_seq

    def rollback(self) -> None:
        """Forget all that was written since the last commit. Numbers are not taken back."""
        super().rollback()
        self._reserved_seq = self._durable_seq

    # Numbers

    def take_seqs(self, count: int) -> int:
        """Reserve ``count`` message numbers in a row; return the first."""
        first = self._next_seq
        self._next_seq += count
        if self._next_seq > self._reserved_seq:
            self._reserved_seq = self._next_seq + _SEQ_BLOCK
            self.write_meta("next_seq", self._reserved_seq)
        return first

    def are_being_published(self, messages: Sequence[Message]) -> bool:
        """Say whether messages are not committed yet, and their numbers theirs even if never."""
        return self._next_seq <= self._durable_seq and all(
            message.seq >= self._uncommitted_seq for message in messages
        )

    @property
    def last_seq(self) -> int:
        """The number of the last message that was published."""
        return self._next_seq - 1

    def take_number(self) -> int:
        """Return a number that no backlog has had."""
        number = int(self.read_meta("next_number") or 1)
        self.write_meta("next_number", number + 1)
        return number

    def _initialize(self, now_us: int) -> None:
        self.write_meta("token", secrets.token_hex(3))
        # 17 digits, as the service's ids have; two files made a second apart don't meet before
        # the first has had ten million messages.
        self.write_meta("id_base", now_us // 1_000_000 * 10_000_000)
        self.commit()

    # Resources

    def resources(self) -> list[ResourceRow]:
        """Return all resources, oldest first."""
        rows = self.read(
            "SELECT name, kind, number, body, created_us, seeks FROM resource"
            " WHERE kind IN ('topic', 'subscription', 'snapshot', 'schema') ORDER BY number"
        )
        return [ResourceRow(*row) for row in rows]

    def save_resource(self, row: ResourceRow) -> None:
        """Write a resource, new or changed."""
        self.write(
            "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?, ?)",
            (row.name, row.kind, row.number, row.body, row.created_us, row.seeks),
        )

    def delete_resource(self, row: ResourceRow) -> None:
        """Forget a resource with its access policy; :meth:`sweep` takes its messages.

        Its number is never used again, so nobody sees them meanwhile. A million rows at once would
        stop the server for seconds.
        """
        self.drop_backlog(row.number)
        self._forget_counts(row.number)
        self.end_seek(row.number)
        self.write("DELETE FROM resource WHERE name = ?", (row.name,))
        self.write("DELETE FROM policy WHERE name = ?", (row.name,))

    def drop_backlog(self, number: int) -> None:
        """Let :meth:`sweep` take the messages and leases of a backlog; nobody may use it again."""
        self._reset_count(number)
        self.write(
            "INSERT OR IGNORE INTO resource VALUES (?, 'garbage', ?, x'', 0, 0)",
            (f"garbage/{number}", number),
        )

    def sweep(self, spared: Collection[int] = ()) -> bool:
        """Delete some messages of dropped backlogs, other than ``spared``; say whether any were."""
        rows = self.read("SELECT name, number FROM resource WHERE kind = 'garbage'").fetchall()
        for name, number in rows:
            if number not in spared:
                if not self.drop_slice(number):
                    self.write("DELETE FROM lease WHERE number = ?", (number,))
                    self.write("DELETE FROM resource WHERE name = ?", (name,))
                return True
        return False

    def begin_copy(self, number: int) -> None:
        """Note that a snapshot is not complete: without :meth:`end_copy` it ends at a restart."""
        self.write(
            "INSERT INTO resource VALUES (?, 'copy', ?, x'', 0, 0)", (f"copy/{number}", number)
        )

    def end_copy(self, number: int) -> None:
        """Note that a snapshot is complete, or gone."""
        self.write("DELETE FROM resource WHERE name = ?", (f"copy/{number}",))

    def drop_unfinished_copies(self) -> None:
        """Drop snapshots that an earlier run has begun; nobody was told of them."""
        rows = self.read("SELECT number FROM resource WHERE kind = 'copy'").fetchall()
        unfinished = {row[0] for row in rows}
        for resource in self.resources() if unfinished else ():
            if resource.number in unfinished:
                self.delete_resource(resource)
        for number in unfinished:
            self.end_copy(number)

    def read_policy(self, name: str) -> bytes | None:
        """Return the serialized access policy of a resource."""
        row = self.read("SELECT body FROM policy WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_policy(self, name: str, body: bytes) -> None:
        """Write the access policy of a resource."""
        self.write("INSERT OR REPLACE INTO policy VALUES (?, ?)", (name, body))

    # Leases: a log of what was leased until when. The last entry of a message counts.

    def record_leases(self, number: int, deadline_us: int, messages: Sequence[Message]) -> None:
        """Append to the log; one row for all messages of one response."""
        entries = array("q")
        for message in messages:
            entries.append(message.seq)
            entries.append(message.generation)
        self.defer_many(
            _INSERT_LEASE,
            [(self._next_position, number, deadline_us, entries.tobytes())],
        )
        self._next_position += 1

    def forget_leases(self, before_us: int) -> None:
        """Drop entries whose deadline is past; what they say has been written into the rows."""
        self.write("DELETE FROM lease WHERE deadline_us < ?", (before_us,))

    def read_leases(self) -> Mapping[int, Mapping[int, list[Message]]]:
        """Return what was leased when the server ended, ``{number: {deadline_us: messages}}``."""
        last: dict[tuple[int, int], tuple[int, int]] = {}
        for number, deadline_us, blob in self.read(
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
