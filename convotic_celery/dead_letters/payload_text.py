"""Payloads as text to read and to edit: :func:`payload_text`. Pure."""

from __future__ import annotations

import json
import re

__all__ = ["indent_json", "payload_text", "show_payload"]

#: A string, a bracket or separator, or a number or word.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_OPENING, _CLOSING = frozenset("[{"), frozenset("]}")


def payload_text(data: bytes) -> str | None:
    """Return a payload as text, JSON indented; None if it is no UTF-8."""
    try:
        return indent_json(data.decode())
    except UnicodeDecodeError:
        return None


def show_payload(data: bytes) -> str:
    """Return a payload as text to read, bytes that are no UTF-8 escaped."""
    text = payload_text(data)
    return data.decode(errors="backslashreplace") if text is None else text


def indent_json(text: str) -> str:
    """Return JSON over several lines, and any other text as it is.

    Only space between its parts changes. ``json.dumps(json.loads(text))`` would write ``19.90`` as
    ``19.9``, round a number of twenty digits and drop a name that comes twice: who edits another
    field would change these as well.
    """
    try:
        json.loads(text, parse_float=len, parse_int=len)
    except (ValueError, RecursionError):
        return text
    parts: list[str] = []
    depth, previous = 0, ""
    for part in _TOKENS.findall(text):
        if part in _CLOSING:
            depth -= 1
        is_empty = part in _CLOSING and previous in _OPENING
        begins_line = previous in _OPENING or previous == "," or part in _CLOSING
        if begins_line and not is_empty:
            parts.append("\n" + "  " * depth)
        parts.append(": " if part == ":" else part)
        if part in _OPENING:
            depth += 1
        previous = part
    return "".join(parts)
