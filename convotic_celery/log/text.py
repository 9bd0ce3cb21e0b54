"""Lines for people.

::

    12:01:34 ✓ custom.orders.new.shop 18375920110382 5 ms
    12:01:34   custom.orders.new.shop 18375920110382 Processing order order_id=1

Time, sign, handler and message id if there are any, text, fields. A sign is ✓ for a success, ↻ for
a retry, ✗ for a dead letter, ! for another warning or error.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from typing import Any

from convotic_celery.log.clip import clip
from convotic_celery.log.fields import LINE_ATTRIBUTE, Line, fields_of
from convotic_celery.log.tracebacks import describe_error

__all__ = ["FieldsFormatter", "TextFormatter", "escape_controls"]

#: What a terminal would obey, or show as another line: messages and errors may be a stranger's.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_DIM, _RED, _GREEN, _YELLOW, _BOLD_RED = "2", "31", "32", "33", "1;31"
_COLOURS = {"✓": _GREEN, "↻": _YELLOW, "✗": _RED, "!": _YELLOW}
#: Loggers whose name says nothing to a module's author.
_QUIET_NAMES = ("celery", "convotic", "kombu", "uvicorn", "py.warnings")
#: Fields that stand before the text, or say what the handler's name says.
_LEADING = ("handler", "message_id", "topic", "attempt", "traceparent")


class TextFormatter(logging.Formatter):
    """One line a record, and its traceback below, from the author's line on.

    Args:
        colours: Write escape codes of a terminal.
        process: What to call this process on each line; "": nothing.
        whole_tracebacks: Fold no frames.
    """

    def __init__(
        self, *, colours: bool = False, process: str = "", whole_tracebacks: bool = False
    ) -> None:
        super().__init__()
        self._colours = colours
        self._process = f"{process} " if process else ""
        self._whole = whole_tracebacks
        self._second = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        line: Line | None = getattr(record, LINE_ATTRIBUTE, None)
        fields = fields_of(record)
        level = record.levelno
        sign = line.sign if line else "!" if level >= logging.WARNING else " "
        text = escape_controls(clip(line.text if line else record.getMessage()))
        paint = self._paint
        colour = _COLOURS.get(sign, "") if level < logging.ERROR else _RED
        parts = [f"{paint(self._clock(record.created), _DIM)} {self._process}{paint(sign, colour)}"]
        if handler := fields.get("handler"):
            parts.append(f"{handler} {paint(str(fields.get('message_id', '')), _DIM)}")
        parts.append(paint(text, colour) if level >= logging.WARNING else text)
        if not line and (pairs := self._pairs(fields)):
            parts.append(paint(pairs, _DIM))
        if not record.name.startswith(_QUIET_NAMES) and record.name != "root":
            parts.append(paint(f"({record.name})", _DIM))
        below = line.traceback if line else ""
        if record.exc_info and record.exc_info[1]:
            below = describe_error(record.exc_info[1], whole=self._whole)
        if below:
            parts[-1] += f"\n{escape_controls(clip(below))}"
        return _indent(" ".join(parts))

    def _pairs(self, fields: dict[str, Any]) -> str:
        attempt = fields.get("attempt", 1)
        shown = {name: value for name, value in fields.items() if name not in _LEADING}
        if attempt != 1:
            shown["attempt"] = attempt
        return _as_pairs(shown)

    def _clock(self, created: float) -> str:
        second = int(created)
        if second != self._second[0]:
            self._second = second, time.strftime("%H:%M:%S", time.localtime(second))
        return self._second[1]

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour and text else text


class FieldsFormatter(logging.Formatter):
    """Formats with another formatter, and appends the record's fields to the message."""

    def __init__(self, other: logging.Formatter) -> None:
        super().__init__()
        self._other = other

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        fields = fields_of(record)
        record = copy.copy(record)
        text = clip(record.getMessage())
        if fields:
            text = f"{text} {_as_pairs(fields)}"
        record.msg, record.args = escape_controls(text), ()
        if record.exc_info:
            record.exc_text = escape_controls(clip(self._other.formatException(record.exc_info)))
        return _indent(self._other.format(record))


def _as_pairs(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={escape_controls(repr(value))}" for name, value in fields.items())


def escape_controls(text: str) -> str:
    """Return the text with control characters, except newlines and tabs, as Python writes them."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def _indent(text: str) -> str:
    """Return the lines of one record with all but the first indented: none can pass for another."""
    return text.replace("\n", "\n  ")
