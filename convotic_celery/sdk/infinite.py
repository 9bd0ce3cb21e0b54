"""Numbers in JSON that no float can hold, such as 1e400: parsers make infinity of them. Pure.

Such numbers are rare, but every message is searched: first for the shape of one, as fast as a copy;
then, since a UUID may have that shape too, with a regular expression; only then by parsing it all.
"""

from __future__ import annotations

import json
import math
import re

__all__ = ["find_infinite"]

#: Every digit as 0, E as e, a minus as a dot, so that only large exponents have this shape.
_SHAPE = bytes(
    0x30 if char in b"0123456789" else 0x65 if char in b"eE" else 0x2E for char in range(256)
)
_LARGE_EXPONENT = b"0e000"
#: With so many digits, an exponent of two digits is large enough.
_MANY_DIGITS = b"0" * 200
_SUSPICIOUS = re.compile(rb"[\s,:\[-]\d[\d.]*[eE]\+?0*[1-9]\d\d|\d{200}|NaN|Infinity")
#: Other threads can run between parts of this size.
_PART_BYTES, _OVERLAP_BYTES = 100_000, 1_000
_LONGEST_SHOWN = 40


class _Found(Exception):
    """The number."""


def find_infinite(raw: bytes) -> str | None:
    """Return the first number of a JSON text that is out of range, shortened; None without one.

    NaN and Infinity count too: they are not JSON. None also if the text is not JSON at all.
    """
    shape = raw.translate(_SHAPE, b"+")
    has_shape = (
        _LARGE_EXPONENT in shape
        or (len(raw) > len(_MANY_DIGITS) and _MANY_DIGITS in shape)
        or b"NaN" in raw
        or b"Infinity" in raw
    )
    if not has_shape or not _is_suspicious(raw):
        return None
    try:
        json.loads(raw, parse_float=_read, parse_constant=_read, parse_int=len)
    except _Found as found:
        text = str(found)
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    except (ValueError, RecursionError):
        pass  # its parser says why
    return None


def _is_suspicious(raw: bytes) -> bool:
    text = b" " + raw  # something stands before each number
    return any(
        _SUSPICIOUS.search(text, start, start + _PART_BYTES + _OVERLAP_BYTES)
        for start in range(0, len(text), _PART_BYTES)
    )


def _read(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _Found(text)
    return number
