"""Numbers that are used once: of messages, in publish order, and of backlogs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_emulator.storage.database import Database
    from convotic_emulator.storage.message import Message

__all__ = ["Numbers"]

#: Message numbers are reserved in blocks, so that none is used twice after a crash.
_SEQ_BLOCK = 100_000


class Numbers:
    """The counters of one data file; ``is_new`` says that it has none yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: The next number; all before these are used and committed; reserved; reserved in the file.
        self._next_seq = self._uncommitted_seq = int(database.read_meta("next_seq") or 1)
        self._reserved_seq = self._durable_seq = self._next_seq
        token = database.read_meta("token")
        self.is_new = token is None
        if token is None:
            token = secrets.token_hex(3)
            database.write_meta("token", token)
        #: Part of every ack id: those of another data file are refused.
        self.token = str(token)

    @property
    def last_seq(self) -> int:
        """The number of the last message that was published."""
        return self._next_seq - 1

    def take_seqs(self, count: int) -> int:
        """Reserve ``count`` message numbers in a row; return the first."""
        first = self._next_seq
        self._next_seq += count
        if self._next_seq > self._reserved_seq:
            self._reserved_seq = self._next_seq + _SEQ_BLOCK
            self._database.write_meta("next_seq", self._reserved_seq)
        return first

    def take_number(self) -> int:
        """Return a number that no backlog has had."""
        number = int(self._database.read_meta("next_number") or 1)
        self._database.write_meta("next_number", number + 1)
        return number

    def are_being_published(self, messages: Sequence[Message]) -> bool:
        """Return whether messages are uncommitted, under numbers that no crash would reuse."""
        return self._next_seq <= self._durable_seq and all(
            message.seq >= self._uncommitted_seq for message in messages
        )

    def are_new(self, messages: Sequence[Message]) -> bool:
        """Return whether one of some messages is not committed yet."""
        return any(message.seq >= self._uncommitted_seq for message in messages)

    def record_commit(self) -> None:
        """Record that what was taken and reserved is in the file."""
        self._uncommitted_seq = self._next_seq
        self._durable_seq = self._reserved_seq

    def record_rollback(self) -> None:
        """Record that the last reservation is not in the file. Numbers are not taken back."""
        self._reserved_seq = self._durable_seq
