"""Formats log records, as text or JSON lines, with the fields of the message.

All logging goes through the standard library; this module only formats. A worker's log handlers are
Celery's, and get our formatter from ``runtime/logs.py``; programs without Celery call
:func:`configure_logging`. structlog's global configuration is left alone.

A JSON line::

    {"event": "Processing order", "order_id": 1, "level": "info",
     "logger": "convotic.handler", "timestamp": "2026-11-23T21:00:00.123456Z",
     "handler": "custom.orders.new.order-processor", "topic": "custom.orders.new",
     "message_id": "1234567890", "attempt": 1}
"""

from __future__ import annotations

import copy
import logging
import re
import sys
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from structlog.typing import EventDict, WrappedLogger

    from convotic_celery.settings import Settings

__all__ = [
    "FIELDS_ATTRIBUTE",
    "FieldsFormatter",
    "build_formatter",
    "configure_logging",
    "format_handlers",
    "log_fields",
]

#: Attribute of a log record that holds a mapping of further fields. One attribute, because
#: ``extra`` may not contain a record's own attributes, such as ``name`` or ``message``.
FIELDS_ATTRIBUTE = "convotic_fields"

_current: ContextVar[Mapping[str, Any] | None] = ContextVar("convotic_log_fields", default=None)

#: Fields whose values are never shown, whichever logger they come from.
_SECRET_FIELDS = frozenset(
    {"api_key", "authorization", "credentials", "password", "redis_url", "secret", "token"}
)

_AS_PAIRS = structlog.processors.KeyValueRenderer()

#: What a terminal would obey, or show as another line: messages and errors may be a stranger's.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Add fields to every record that this task or thread logs inside, by any logger."""
    reset = _current.set({**(_current.get() or {}), **fields})
    try:
        yield
    finally:
        _current.reset(reset)


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send the root logger's records to ``stream`` (default: stderr), formatted by the settings.

    Replaces the root logger's handlers. For programs whose logging Celery does not configure.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(build_formatter(settings.log_format, stream))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)


class FieldsFormatter(logging.Formatter):
    """Formats with another formatter, and appends the record's fields to the message."""

    def __init__(self, other: logging.Formatter) -> None:
        super().__init__()
        self._other = other

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        fields = {**(_current.get() or {}), **getattr(record, FIELDS_ATTRIBUTE, {})}
        record = copy.copy(record)
        text = record.getMessage()
        if fields:
            text = f"{text} {_AS_PAIRS(None, '', _mask(fields))}"
        record.msg, record.args = _escape(text), ()
        if record.exc_info:
            record.exc_text = _escape(self._other.formatException(record.exc_info))
        return _indent(None, "", self._other.format(record))


def format_handlers(logger: logging.Logger, settings: Settings) -> None:
    """Give the logger's handlers our formatter; levels, streams and files stay as they are."""
    for handler in logger.handlers:
        stream = getattr(handler, "stream", None)
        handler.setFormatter(build_formatter(settings.log_format, stream))


def build_formatter(
    log_format: Literal["auto", "text", "json"], stream: TextIO | None
) -> logging.Formatter:
    """Return the formatter; ``auto`` is text on a terminal and JSON lines elsewhere."""
    is_terminal = stream is not None and stream.isatty()
    if log_format == "text" or (log_format == "auto" and is_terminal):
        time = structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S.%f", utc=False)
        last: list[Any] = [
            _escape_all,
            structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=_write_traceback),
            _indent,
        ]
    else:
        time = structlog.processors.TimeStamper(fmt="iso", utc=True)
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            time,
            _add_fields,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the record's own fields and those of :func:`log_fields`; the record's win."""
    record: logging.LogRecord = event["_record"]
    own = getattr(record, FIELDS_ATTRIBUTE, {})
    for name, value in _mask({**(_current.get() or {}), **own}).items():
        event.setdefault(name, value)
    return event


def _mask(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "***" if name.lower() in _SECRET_FIELDS else v for name, v in fields.items()}


def _escape_all(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            text = _escape(value)
            event[name] = text if name == "event" else text.replace("\n", "\\n")
    return event


def _write_traceback(stream: TextIO, exc_info: Any) -> None:
    stream.write(_escape("".join(traceback.format_exception(*exc_info))).rstrip("\n"))


def _escape(text: str) -> str:
    """Return the text with control characters, except newlines and tabs, as Python writes them."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def _indent(_logger: WrappedLogger | None, _method: str, text: str) -> str:
    """Return the lines of one record with all but the first indented: none can pass for another."""
    return text.replace("\n", "\n  ")
