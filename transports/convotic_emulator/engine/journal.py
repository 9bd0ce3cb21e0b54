"""The seam between the state machine and what survives a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_emulator.engine.lease import Message

__all__ = ["Journal"]


class Journal(Protocol):
    """Where rows are. Writes become durable at the next commit, which the caller sees to."""

    def read_page(
        self, number: int, after_seq: int, max_messages: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return the next rows in order, and whether there may be more after them."""
        ...

    def read_key(
        self, number: int, key: str, after_seq: int, to_seq: int, limit: int
    ) -> list[Message]:
        """Return rows of one ordering key, in order."""
        ...

    def read_bodies(self, number: int, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the data of those that exist."""
        ...

    def find(self, number: int, seq: int) -> Message | None:
        """Return one row without its data."""
        ...

    def last_before(self, number: int, time_us: int) -> int:
        """Return a seq up to which all rows were published before a time."""
        ...

    def add_dead_letters(self, number: int, messages: int) -> None:
        """Count messages that were forwarded to the dead-letter topic."""
        ...

    def remove(self, number: int, seqs: Sequence[int], *, retain: bool) -> None:
        """Take out rows for good; ``retain`` keeps them for a later seek."""
        ...

    def record_leases(self, number: int, deadline_us: int, messages: Sequence[Message]) -> None:
        """Write down who is leased until when."""
        ...

    def record_redelivery(self, number: int, messages: Sequence[Message]) -> None:
        """Write down attempts, generation and due time."""
        ...
