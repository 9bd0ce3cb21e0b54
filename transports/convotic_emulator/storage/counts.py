"""How many messages each backlog has: counted as they come and go, written with what changes them.

To count a million rows takes a second; this is a number in memory, and a row that the same
transaction updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_emulator.storage.database import Database

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CountedDatabase"]

_SAVE = "INSERT OR REPLACE INTO backlog_count VALUES (?, ?, ?)"


class CountedDatabase(Database):
    """A data file that knows the sizes of its backlogs, by their numbers."""

    def __init__(self, path: Path | str, *, fsync: bool) -> None:
        super().__init__(path, fsync=fsync)
        self._messages: dict[int, int] = {}
        self._dead_lettered: dict[int, int] = {}
        self._changed: set[int] = set()
        self._read_counts()

    def rollback(self) -> None:
        """Forget all that was written since the last commit."""
        super().rollback()
        self._read_counts()

    def commit(self) -> None:
        """Make all that was written durable, and the counts with it."""
        if self._changed:
            self.write_many(
                _SAVE, [(n, self.count(n), self.count_dead_letters(n)) for n in self._changed]
            )
            self._changed.clear()
        super().commit()

    def count(self, number: int) -> int:
        """Return how many messages a backlog has."""
        return self._messages.get(number, 0)

    def count_dead_letters(self, number: int) -> int:
        """Return how many messages have gone from a backlog to its dead-letter topic."""
        return self._dead_lettered.get(number, 0)

    def add_dead_letters(self, number: int, messages: int) -> None:
        """Count messages that have gone to the dead-letter topic."""
        self._dead_lettered[number] = self.count_dead_letters(number) + messages
        self._changed.add(number)

    def _read_counts(self) -> None:
        rows = self.read("SELECT number, messages, dead_lettered FROM backlog_count").fetchall()
        self._messages = {row[0]: row[1] for row in rows}
        self._dead_lettered = {row[0]: row[2] for row in rows}
        self._changed.clear()

    def _add(self, number: int, messages: int) -> None:
        """Count messages that were added, or (negative) taken out."""
        self._messages[number] = self.count(number) + messages
        self._changed.add(number)

    def _reset_count(self, number: int) -> None:
        """Count a backlog as empty, whatever rows are still there."""
        self._add(number, -self.count(number))

    def _forget_counts(self, number: int) -> None:
        """Drop the counts of a backlog that does not exist any more."""
        self._messages.pop(number, None)
        self._dead_lettered.pop(number, None)
        self._changed.discard(number)
        self.write("DELETE FROM backlog_count WHERE number = ?", (number,))
