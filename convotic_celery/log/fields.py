"""Fields of log records: those that a call gives, and those of the run in which it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "FIELDS_ATTRIBUTE",
    "LINE_ATTRIBUTE",
    "Fields",
    "Line",
    "fields_of",
    "log_fields",
    "use_fields",
]

#: Attribute of a log record that holds a mapping of further fields. One attribute, because
#: ``extra`` may not contain a record's own attributes, such as ``name`` or ``message``.
FIELDS_ATTRIBUTE = "convotic_fields"

#: Attribute of a log record that holds a :class:`Line`: what people see instead of its message.
LINE_ATTRIBUTE = "convotic_line"

#: Fields whose values are never shown, whichever logger they come from.
_SECRET_FIELDS = frozenset(
    {"api_key", "authorization", "credentials", "password", "redis_url", "secret", "token"}
)

#: Returns fields when a record needs them: most runs log nothing.
Fields: TypeAlias = Callable[[], Mapping[str, Any]]

_current: ContextVar[Fields | None] = ContextVar("convotic_log_fields", default=None)


class Line(NamedTuple):
    """A record as people see it: its sign, and a text without the handler and the message id."""

    #: One character; see ``text.py``.
    sign: str
    text: str
    #: An error's folded traceback; "": none.
    traceback: str = ""


def use_fields(fields: Fields) -> Token[Fields | None]:
    """Have ``fields()`` in every record that this task or thread logs from now on."""
    return _current.set(fields)


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Add fields to every record that this task or thread logs inside, by any logger."""
    outer = _current.get()
    reset = _current.set(lambda: {**(outer() if outer else {}), **fields})
    try:
        yield
    finally:
        _current.reset(reset)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return all fields of a record, its own first in rank; secrets are masked."""
    current = _current.get()
    own = getattr(record, FIELDS_ATTRIBUTE, None)
    if current is None and not own:
        return {}
    fields = {**(current() if current else {}), **(own or {})}
    return {name: "***" if name.lower() in _SECRET_FIELDS else v for name, v in fields.items()}
