"""The data file as one object: its parts, shared commits, and what concerns several parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_emulator.errors import StoreError
from convotic_emulator.storage.backlogs import Backlogs
from convotic_emulator.storage.counts import Counts
from convotic_emulator.storage.database import Database
from convotic_emulator.storage.datafile import MEMORY
from convotic_emulator.storage.leases import Leases
from convotic_emulator.storage.numbers import Numbers
from convotic_emulator.storage.resources import ResourceRow, Resources
from convotic_emulator.storage.seeks import Seeks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MEMORY", "Store"]


class Store:
    """One data file. Not thread-safe. Writes become durable with :meth:`commit`.

    Args:
        path: the file, or ``MEMORY``.
        fsync: survive power loss too, at the cost of a sync for each commit.

    Raises:
        StoreError: the file is damaged, foreign or of another version; it was not changed.
    """

    def __init__(self, path: Path | str, *, fsync: bool = False) -> None:
        self.database = Database(path, fsync=fsync)
        try:
            self._read(path)
        except BaseException:
            self.database.rollback()  # or closing it commits
            self.database.close()
            raise

    def _read(self, path: Path | str) -> None:
        self.numbers = Numbers(self.database)
        self.counts = Counts(self.database)
        self.backlogs = Backlogs(self.database, self.counts)
        self.leases = Leases(self.database, self.backlogs)
        self.seeks = Seeks(self.database, self.counts, self.backlogs)
        self.resources = Resources(self.database)
        if self.numbers.is_new:
            if self.resources.all():
                raise StoreError(f"The data file {path} is damaged (token); it was not changed.")
            self.commit()

    def commit(self) -> None:
        """Make all that was written durable."""
        self.counts.write()
        self.database.commit()
        self.numbers.record_commit()

    def rollback(self) -> None:
        """Forget all that was written since the last commit."""
        self.database.rollback()
        self.counts.read()
        self.backlogs.packs.read()
        self.numbers.record_rollback()

    def close(self) -> None:
        """Commit, fold the log into the file, and close. Idempotent."""
        self.commit()
        self.database.close()

    def abandon(self) -> None:
        """Close without a commit: the file has failed, and what it has is all that it will have."""
        self.database.abandon()

    def delete_resource(self, row: ResourceRow) -> None:
        """Forget a resource with its access policy; :meth:`sweep` takes its messages.

        Its number is never reused, so they are invisible meanwhile. Deleting a million rows at once
        would stop the server for seconds.
        """
        self.drop_backlog(row.number)
        self.counts.forget(row.number)
        self.seeks.end(row.number)
        self.resources.delete(row)

    def drop_backlog(self, number: int) -> None:
        """Let :meth:`sweep` delete messages and leases of a backlog that is never used again."""
        self.counts.reset(number)
        self.database.write(
            "INSERT OR IGNORE INTO resource VALUES (?, 'garbage', ?, x'', 0, 0)",
            (f"garbage/{number}", number),
        )

    def sweep(self) -> bool:
        """Delete some messages of dropped backlogs; say whether any were."""
        row = self.database.read(
            "SELECT name, number FROM resource WHERE kind = 'garbage' LIMIT 1"
        ).fetchone()
        if row is None:
            return False
        name, number = row
        if not self.backlogs.drop_slice(number):
            self.leases.forget(number)
            self.database.write("DELETE FROM resource WHERE name = ?", (name,))
        return True

    def drop_unfinished_copies(self) -> None:
        """Drop incomplete snapshots of an earlier run: their creation was never confirmed."""
        unfinished = self.seeks.unfinished_copies()
        for resource in self.resources.all() if unfinished else ():
            if resource.number in unfinished:
                self.delete_resource(resource)
        for number in unfinished:
            self.seeks.end_copy(number)
