"""Which dead letters are meant: :class:`Match`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from convotic_celery.dead_letters.entry import DeadLetter, Group, State

__all__ = ["Match"]

_PART = re.compile(r"[^.\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a list, a replay or any other action takes; all that is given must apply."""

    #: Entries by their id, or by ``message.id``.
    ids: tuple[str, ...] = ()
    #: The queue of the handler.
    handler: str = ""
    reason: str = ""
    #: The error's class: its dotted name, or the last part of it.
    error: str = ""
    #: A group's id, or the beginning of it.
    group: str = ""
    #: A part of the error's text, or of a line of the stack.
    text: str = ""
    #: The publisher's attributes that must have these values.
    attributes: Mapping[str, str] = field(default_factory=dict)
    #: Paths into the JSON payload, and the text of the value there:
    #: ``{"customer.city": "Edinburgh", "lines[0].sku": "a-1"}``.
    payload: Mapping[str, str] = field(default_factory=dict)
    #: Seconds since it was dead-lettered, at least and at most.
    older_than: float | None = None
    newer_than: float | None = None
    state: State = "open"

    @property
    def looks_at_groups(self) -> bool:
        """True if it asks for what all entries of a group have in common."""
        return bool(self.handler or self.reason or self.error or self.group)

    @property
    def looks_at_entries(self) -> bool:
        """True if each entry has to be looked at."""
        return bool(self.attributes or self.payload or self.text)

    def takes_group(self, group: Group) -> bool:
        """Say whether a group's entries may match."""
        kind = group.error_type
        return (
            (not self.handler or group.handler == self.handler)
            and (not self.reason or group.reason == self.reason)
            and (not self.error or kind == self.error or kind.endswith(f".{self.error}"))
            and group.id.startswith(self.group)
        )

    def takes(self, dead: DeadLetter, now: datetime) -> bool:
        """Say whether an entry matches, whatever its state; for what the store does not know."""
        age = (now - dead.dead_lettered_at).total_seconds()
        kind = dead.error_type
        return (
            (not self.ids or dead.id in self.ids or dead.message_id in self.ids)
            and (not self.handler or dead.handler == self.handler)
            and (not self.reason or dead.reason == self.reason)
            and (not self.error or kind == self.error or kind.endswith(f".{self.error}"))
            and dead.group.startswith(self.group)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
            and (not self.text or self.text in "\n".join((dead.error_message, *dead.stack)))
            and self.attributes.items() <= dead.all_attributes.items()
            and all(_find(dead.data, path) == text for path, text in self.payload.items())
        )

    def to_filter(self, groups: list[str] | None) -> str:
        """Return as JSON what ``scripts.SELECT`` checks on each entry; "" if nothing."""
        if not self.looks_at_entries and groups is None:
            return ""
        parts = {
            "groups": None if groups is None else dict.fromkeys(groups, True),
            "text": self.text or None,
            "attributes": dict(self.attributes) or None,
            "payload": [[split_path(p), text] for p, text in self.payload.items()] or None,
        }
        return json.dumps({name: part for name, part in parts.items() if part is not None})

    def describe(self) -> str:
        """Return it in a few words, for the action log."""
        words = [*self.ids]
        for name in ("handler", "reason", "error", "group", "text", "older_than", "newer_than"):
            value = getattr(self, name)
            if value not in ("", None):
                words.append(f"{name}={value}")
        words += [f"{name}={text}" for name, text in self.attributes.items()]
        words += [f"{path}={text}" for path, text in self.payload.items()]
        return " ".join([*words, f"state={self.state}"])


def split_path(path: str) -> list[str]:
    """Return the parts of a path into JSON: ``a.b[0].c``; a leading ``$`` is allowed."""
    return _PART.findall(path.removeprefix("$"))


def _find(data: bytes | None, path: str) -> str | None:
    """Return the text of the value at a path, as the script does; None if there is none."""
    try:
        value: Any = json.loads(data or b"")
        for part in split_path(path):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else json.dumps(value)
