"""A file to which other processes append lines while a test reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_lines"]


def read_lines(path: Path) -> list[str]:
    """Return the lines that are complete; none of a file that is not there yet.

    What is written across the end of a page can be read in two parts.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()
