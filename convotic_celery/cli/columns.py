"""Aligned columns of plain text: never cut nor wrapped, so that names can be copied and grepped."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["align"]


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return header and rows with each column as wide as its longest cell."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
