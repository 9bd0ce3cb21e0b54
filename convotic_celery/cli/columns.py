"""Aligned columns of plain text: never cut nor wrapped, so that names can be copied and grepped.

What messages and handlers have written is shown as text, whatever a terminal would make of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

__all__ = ["align", "json_text", "plain"]

#: Control characters that JSON may hold as they are.
_CONTROLS = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return header and rows with each column as wide as its longest cell."""
    lines = [header, *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _one_line(cell: str) -> str:
    return plain(cell).replace("\n", "\\n").replace("\t", "\\t")


def plain(text: str) -> str:
    """Return the text with control characters, except newlines and tabs, as Python writes them."""
    from convotic_celery.log import escape_controls

    return escape_controls(text)


def json_text(value: object, *, indent: int | None = 2) -> str:
    """Return a value as JSON that a person reads: letters as they are, no control character."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
