"""Commits that many requests share, and what happens when the data file can't be used.

All requests that were handled since the last commit share the next one, which runs at the end of
the event loop's round: no answer leaves before what it confirms is committed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Protocol

from convotic_emulator.errors import ResourceExhausted, Unavailable
from convotic_emulator.storage.database import RESERVED_BYTES

if TYPE_CHECKING:
    from convotic_emulator.storage.store import Store

__all__ = ["Commits", "Memory"]

logger = logging.getLogger(__name__)

#: A file that could not be written is tried again so much later.
RETRY_SECONDS = 1.0
#: SQLite's errors that may be temporary: no room, disk errors, no memory, a lock.
_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY}
)


class Memory(Protocol):
    """The in-memory state of the file: notified when the two differ, and when they agree again."""

    def on_commit(self) -> None:
        """Go on after a commit."""
        ...

    def on_trouble(self, error: Unavailable) -> None:
        """Refuse every request: memory may be ahead of the file, which has what was confirmed."""
        ...

    def reload(self) -> None:
        """Read everything from the file, as after a kill. May raise sqlite3.Error."""
        ...

    def on_recovery(self) -> None:
        """Serve again."""
        ...


class _Commit(asyncio.Future[None]):
    """Done when a commit is. Many tasks wait for it: cancelling one of them must not cancel it."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002  # Future's signature
        """Do nothing; a cancelled task ends when the commit is done."""
        return False


class Commits:
    """The commits of one store. Belongs to the event loop that it is created in."""

    def __init__(self, store: Store, memory: Memory) -> None:
        self._store = store
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        #: Set to the error when the store has failed for good: the server must stop.
        self.failed: asyncio.Future[None] = self._loop.create_future()
        #: While the file can't be written: what every request is answered.
        self._trouble: Unavailable | None = None
        #: What the file failed with.
        self._error: sqlite3.Error | None = None
        #: The connections that have published since the last commit.
        self.publishers: set[object] = set()
        self._next: _Commit | None = None
        self._nothing: asyncio.Future[None] = self._loop.create_future()
        self._nothing.set_result(None)
        self._is_stopped = False

    @property
    def is_usable(self) -> bool:
        """Whether the file can be read and written."""
        return self._trouble is None and not self.failed.done()

    def check_usable(self) -> None:
        """Raise Unavailable while the file can't be written: nothing may change in memory."""
        if self._trouble is not None:
            raise self._trouble

    def check_room(self) -> None:
        """Raise ResourceExhausted when nothing may be added, so that the rest can go on."""
        if not self._store.database.has_room():
            raise ResourceExhausted(
                f"The disk has less than {RESERVED_BYTES >> 20} MiB free; nothing was published."
            )

    def committed(self) -> asyncio.Future[None]:
        """Return a future that is done when all that was written until now is committed."""
        if self._next is None:
            if not self._store.database.has_uncommitted and self.is_usable:
                return self._nothing  # saves a round of the loop
            self._next = _Commit(loop=self._loop)
            self._loop.call_soon(self.flush)
        return self._next

    def commit_soon(self) -> None:
        """Commit what was written, if anything was, without waiting for it."""
        if self._store.database.has_uncommitted:
            self.committed()

    def flush(self) -> None:
        """Commit now."""
        commit, self._next = self._next, None
        self.publishers.clear()
        try:
            if not self.is_usable:
                raise self._error or sqlite3.OperationalError("it has failed before")
            self._store.commit()
        except sqlite3.Error as error:
            self.fail(error)
            if commit is not None and not commit.done():
                commit.set_exception(Unavailable(f"The data file can't be written: {error}."))
                commit.exception()  # seen: timers commit without waiting
            return
        if commit is not None and not commit.done():
            commit.set_result(None)
        self._memory.on_commit()

    def fail(self, error: sqlite3.Error) -> None:
        """Refuse every request. Temporary errors like a full disk are retried; others are fatal."""
        if not self.is_usable:
            return
        self._error = error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            logger.error("The data file can't be written (%s); trying again.", error)
            self._trouble = Unavailable(f"The data file can't be written: {error}.")
            self._memory.on_trouble(self._trouble)
            self._retry_later(error)
        else:
            self._fail_for_good(error)

    def stop(self) -> bool:
        """Commit for the last time; say whether the file can still be used."""
        self._is_stopped = True
        self.flush()
        if self.failed.done():
            return False
        self.failed.cancel()
        return True

    def _fail_for_good(self, error: sqlite3.Error) -> None:
        logger.critical("The data file can't be used any more; stopping.", exc_info=error)
        self.failed.set_exception(error)
        self.failed.exception()  # retrieved: tests may not wait for it
        self._memory.on_trouble(Unavailable("The server is shutting down."))

    def _retry_later(self, error: sqlite3.Error) -> None:
        try:
            self._store.rollback()
        except sqlite3.Error:
            self._fail_for_good(error)
        else:
            self._loop.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        if self._is_stopped:
            return
        try:
            self._memory.reload()
            self._store.commit()
        except sqlite3.Error as error:
            self._retry_later(error)
            return
        self._trouble = None
        logger.warning("Serving again.")
        self._memory.on_recovery()
