"""How many messages each backlog has: counted as they come and go, written with what changes them.

To count a million rows takes a second; this is a number in memory, and a row that the same
transaction updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_emulator.storage.database import Database

__all__ = ["Counts"]

_SAVE = "INSERT OR REPLACE INTO backlog_count VALUES (?, ?, ?)"


class Counts:
    """The sizes of a file's backlogs, by their numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._messages: dict[int, int] = {}
        self._dead_letters: dict[int, int] = {}
        self._changed: set[int] = set()
        self.read()

    def read(self) -> None:
        """Read all from the file: memory may be ahead of it after a rollback."""
        rows = self._database.read(
            "SELECT number, messages, dead_lettered FROM backlog_count"
        ).fetchall()
        self._messages = {row[0]: row[1] for row in rows}
        self._dead_letters = {row[0]: row[2] for row in rows}
        self._changed.clear()

    def write(self) -> None:
        """Write what has changed; part of every commit."""
        if self._changed:
            rows = [(n, self.messages(n), self.dead_letters(n)) for n in self._changed]
            self._database.write_many(_SAVE, rows)
            self._changed.clear()

    def messages(self, number: int) -> int:
        """Return how many messages a backlog has."""
        return self._messages.get(number, 0)

    def dead_letters(self, number: int) -> int:
        """Return how many messages have gone from a backlog to its dead-letter topic."""
        return self._dead_letters.get(number, 0)

    def add(self, number: int, messages: int) -> None:
        """Count messages that were added, or (negative) taken out."""
        self._messages[number] = self.messages(number) + messages
        self._changed.add(number)

    def add_dead_letters(self, number: int, messages: int) -> None:
        """Count messages that have gone to the dead-letter topic."""
        self._dead_letters[number] = self.dead_letters(number) + messages
        self._changed.add(number)

    def reset(self, number: int) -> None:
        """Count a backlog as empty, whatever rows are still there."""
        self.add(number, -self.messages(number))

    def forget(self, number: int) -> None:
        """Drop the counts of a backlog that does not exist any more."""
        self._messages.pop(number, None)
        self._dead_letters.pop(number, None)
        self._changed.discard(number)
        self._database.write("DELETE FROM backlog_count WHERE number = ?", (number,))
