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

import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from convotic_celery.context.models import Contact, Conversation, Message
from convotic_celery.context.totals import unscale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from decimal import Decimal

__all__ = [
    "contact_of",
    "flatten",
    "new_id",
    "new_token",
    "parse_contact",
    "parse_conversation",
    "parse_message",
    "utc_now",
]


#: Random bytes, ten at a time: asking the kernel for many costs little more than for ten. list.pop
#: is atomic.
_PIECE_BYTES, _PIECES = 10, 400
_random: list[bytes] = []

_last_id = 0
_last_id_lock = threading.Lock()


def _begin_in_child() -> None:
    """Repeat no random bytes of the parent; its lock may be held by a thread that is not here."""
    global _last_id_lock  # noqa: PLW0603 - as above
    _random.clear()
    _last_id_lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_in_child)


def new_id() -> str:
    """Return a new id, a UUID version 7: ids sort by age.

    Exactly so within a process, to the millisecond and the clocks' accuracy between processes.
    """
    global _last_id  # noqa: PLW0603 - one sequence a process is the point
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(_random_piece())
    value = (value & ~(0xF000C << 60)) | (0x70008 << 60)  # version and variant
    with _last_id_lock:
        if value <= _last_id:
            # The same millisecond, or the clock went back: continue from the last one at random.
            value = _last_id + 1 + int.from_bytes(_random_piece()[:4])
        _last_id = value
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_token() -> str:
    """Return a token by which the store recognises a call repeated after a lost answer."""
    return _random_piece()[:8].hex()


def _random_piece() -> bytes:
    try:
        return _random.pop()
    except IndexError:
        drawn = os.urandom(_PIECE_BYTES * _PIECES)
        _random.extend(drawn[at : at + _PIECE_BYTES] for at in range(0, len(drawn), _PIECE_BYTES))
        return os.urandom(_PIECE_BYTES)  # other threads may have taken all of those


#: As Contact.model_validate, which adds a third to the time.
_validate_contact: Callable[[Mapping[str, object]], Contact]
_validate_contact = TypeAdapter(Contact).validator.validate_python

_NO_TOTALS: Final[Mapping[str, Decimal]] = {}

#: The current second and its text: writing the date takes ten times as long as the rest.
_second = (0, "")


def utc_now() -> str:
    """Return the time as it is kept: ISO 8601, UTC, microseconds."""
    global _second  # noqa: PLW0603 - replaced as a whole, so threads need no lock
    seconds, microseconds = divmod(time.time_ns() // 1_000, 1_000_000)
    second = _second
    if second[0] != seconds:
        _second = second = (seconds, f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}")
    return f"{second[1]}.{microseconds:06}+00:00"


def flatten(fields: Mapping[str, str]) -> list[str]:
    """Return names and values in turn, as HSET takes them and HGETALL gives them."""
    return [text for pair in fields.items() for text in pair]


def parse_contact(flat: Iterable[str]) -> Contact:
    """Return the contact that a hash, as a flat list of names and values, holds."""
    return contact_of(dict(_pairs(flat)))


def contact_of(kept: Mapping[str, str]) -> Contact:
    """Return the contact that a hash holds."""
    attributes, totals, tags = {}, {}, []
    for name in [name for name in kept if ":" in name]:
        kind, _, own_name = name.partition(":")
        if kind == "tag":
            tags.append(own_name)
        elif kind == "total":
            totals[own_name] = unscale(kept[name])
        elif kind == "attribute":
            attributes[own_name] = from_json(kept[name])
    # The model ignores the names that are not its own.
    contact = _validate_contact(
        {**kept, "attributes": attributes, "totals": _NO_TOTALS, "tags": frozenset(tags)}
    )
    if totals:  # exact numbers already: to validate each takes as long as three other fields
        contact.__dict__["totals"] = totals
    return contact


def parse_conversation(flat: Iterable[str]) -> Conversation:
    """Return the conversation that a hash, as a flat list of names and values, holds."""
    return Conversation.model_validate(dict(_pairs(flat)))


def parse_message(flat: Iterable[str]) -> Message:
    """Return the message that a hash, as a flat list of names and values, holds."""
    return Message.model_validate(dict(_pairs(flat)))


def _pairs(flat: Iterable[str]) -> Iterator[tuple[str, str]]:
    values = iter(flat)
    return zip(values, values, strict=True)
