"""Topics, subscriptions, snapshots and schemas as rows, and access policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_emulator.storage.database import Database

__all__ = ["ResourceRow", "Resources"]


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


class Resources:
    """The resources of one data file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[ResourceRow]:
        """Return all resources, oldest first."""
        rows = self._database.read(
            "SELECT name, kind, number, body, created_us, seeks FROM resource"
            " WHERE kind IN ('topic', 'subscription', 'snapshot', 'schema') ORDER BY number"
        )
        return [ResourceRow(*row) for row in rows]

    def save(self, row: ResourceRow) -> None:
        """Write a resource, new or changed."""
        self._database.write(
            "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?, ?)",
            (row.name, row.kind, row.number, row.body, row.created_us, row.seeks),
        )

    def delete(self, row: ResourceRow) -> None:
        """Delete a resource and its access policy."""
        self._database.write("DELETE FROM resource WHERE name = ?", (row.name,))
        self._database.write("DELETE FROM policy WHERE name = ?", (row.name,))

    def policy(self, name: str) -> bytes | None:
        """Return the serialized access policy of a resource."""
        row = self._database.read("SELECT body FROM policy WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_policy(self, name: str, body: bytes) -> None:
        """Write the access policy of a resource."""
        self._database.write("INSERT OR REPLACE INTO policy VALUES (?, ?)", (name, body))
