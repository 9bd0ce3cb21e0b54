"""Keeps one record from filling the log: an error's text may be a whole document."""

from __future__ import annotations

__all__ = ["MAX_CHARACTERS", "clip"]

#: Of a record's text, and of its traceback. Cloud Logging takes entries of at most 256 KB, and a
#: character may take six bytes of JSON.
MAX_CHARACTERS = 20_000


def clip(text: str) -> str:
    """Return the text, its middle left out if it is too long: a traceback ends with the error."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}… [{len(text) - 2 * half:,} characters left out] …{text[-half:]}"
