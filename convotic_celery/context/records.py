"""How models are kept in the store, and read back. Pure, but for the clock and random ids.

A contact is one hash, so that one command reads it whole::

    convotic:contact:0199...    id, external_id, first_name, ..., created_at, updated_at
                                tag:has-order     (empty)
                                attribute:plan    "gold"           JSON
                                total:amount      29330000         millionths, an exact integer
                                _email            ann@example.com  as it is indexed

Names that begin with ``_`` are for the store's own indexes.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from convotic_celery.context.models import Contact, Conversation, Message
from convotic_celery.context.totals import unscale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "flatten",
    "new_id",
    "new_token",
    "parse_contact",
    "parse_conversation",
    "parse_message",
    "utc_now",
]


_last_id = 0
_last_id_lock = threading.Lock()


def new_id() -> str:
    """Return a new id, a UUID version 7: ids sort by age.

    Exactly so within a process, to the millisecond and the clocks' accuracy between processes.
    """
    global _last_id  # noqa: PLW0603 - one sequence a process is the point
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF000 << 64)) | (7 << 76)  # version
    value = (value & ~(0xC000 << 48)) | (0x8000 << 48)  # variant
    with _last_id_lock:
        if value <= _last_id:
            # The same millisecond, or the clock went back: continue from the last one at random.
            value = _last_id + 1 + secrets.randbits(32)
        _last_id = value
    return str(uuid.UUID(int=value))


def new_token() -> str:
    """Return a token by which the store recognises a call repeated after a lost answer."""
    return secrets.token_hex(8)


def utc_now() -> str:
    """Return the time as it is kept: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def flatten(fields: Mapping[str, str]) -> list[str]:
    """Return names and values in turn, as HSET takes them and HGETALL gives them."""
    return [text for pair in fields.items() for text in pair]


def parse_contact(flat: Iterable[str]) -> Contact:
    """Return the contact that a hash, as a flat list of names and values, holds."""
    fields: dict[str, Any] = {"attributes": {}, "totals": {}}
    tags = set()
    for name, value in _pairs(flat):
        kind, _, rest = name.partition(":")
        if kind == "tag":
            tags.add(rest)
        elif kind == "attribute":
            fields["attributes"][rest] = from_json(value)
        elif kind == "total":
            fields["totals"][rest] = unscale(value)
        elif not name.startswith("_"):
            fields[name] = value
    return Contact(**fields, tags=frozenset(tags))


def parse_conversation(flat: Iterable[str]) -> Conversation:
    """Return the conversation that a hash, as a flat list of names and values, holds."""
    return Conversation.model_validate(dict(_pairs(flat)))


def parse_message(flat: Iterable[str]) -> Message:
    """Return the message that a hash, as a flat list of names and values, holds."""
    return Message.model_validate(dict(_pairs(flat)))


def _pairs(flat: Iterable[str]) -> Iterator[tuple[str, str]]:
    values = iter(flat)
    return zip(values, values, strict=True)
