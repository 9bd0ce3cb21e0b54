"""Leases as a log of messages and deadlines. The last entry of a message counts."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convotic_emulator.storage.backlogs import Backlogs
    from convotic_emulator.storage.database import Database
    from convotic_emulator.storage.message import Message

__all__ = ["Leases"]

_INSERT = "INSERT INTO lease VALUES (?, ?, ?, ?)"


class Leases:
    """The log of one data file."""

    def __init__(self, database: Database, backlogs: Backlogs) -> None:
        self._database = database
        self._backlogs = backlogs
        row = database.read("SELECT coalesce(max(position), 0) FROM lease").fetchone()
        self._next_position = int(row[0]) + 1

    def record(self, number: int, deadline_us: int, messages: Sequence[Message]) -> None:
        """Append to the log; one row for all messages of one response."""
        entries = array("q")
        for message in messages:
            entries.append(message.seq)
            entries.append(message.generation)
        row = (self._next_position, number, deadline_us, entries.tobytes())
        self._database.defer_many(_INSERT, [row])
        self._next_position += 1

    def forget_before(self, time_us: int) -> None:
        """Drop entries whose deadline is past; what they say has been written into the rows."""
        self._database.write("DELETE FROM lease WHERE deadline_us < ?", (time_us,))

    def forget(self, number: int) -> None:
        """Drop all entries of a backlog."""
        self._database.write("DELETE FROM lease WHERE number = ?", (number,))

    def read(self) -> Mapping[int, Mapping[int, list[Message]]]:
        """Return what was leased when the server ended, ``{number: {deadline_us: messages}}``."""
        last: dict[tuple[int, int], tuple[int, int]] = {}
        for number, deadline_us, blob in self._database.read(
            "SELECT number, deadline_us, entries FROM lease ORDER BY position"
        ):
            entries = array("q", blob)
            for seq, generation in zip(entries[::2], entries[1::2], strict=True):
                last[number, seq] = (deadline_us, generation)
        leases: dict[int, dict[int, list[Message]]] = {}
        for (number, seq), (deadline_us, generation) in last.items():
            message = self._backlogs.find(number, seq)
            # Another generation: it has been redelivered, or sought, since.
            if message is not None and message.generation == generation:
                leases.setdefault(number, {}).setdefault(deadline_us, []).append(message)
        return leases
