"""Numbers in JSON that no float can hold, such as 1e400: parsers make infinity of them. Pure.

Such numbers are rare, but every message is searched: first for the shape of one, as fast as a copy;
then, since a UUID may have that shape too, around what was found; only then by parsing it all.
"""

from __future__ import annotations

import json
import math

__all__ = ["find_infinite"]

_DIGITS = b"0123456789"
#: Every digit as 0; E as e, and a plus too, which can only stand behind one; all else as a dot.
_SHAPE = bytes(0x30 if char in _DIGITS else 0x65 if char in b"eE+" else 0x2E for char in range(256))
_LARGE_EXPONENT = b"e000"
#: With so many digits, an exponent of two digits is large enough.
_MANY_DIGITS = b"0" * 200
#: What stands before a number and its sign.
_BEFORE = b" \t\r\n,:["
#: Longer than the digits of a UUID.
_NEAR_BYTES = 40
_LONGEST_SHOWN = 40


class _Found(Exception):
    """The number."""


def find_infinite(raw: bytes) -> str | None:
    """Return the first number of a JSON text that is out of range, shortened; None without one.

    NaN and Infinity count too: they are not JSON. None also if the text is not JSON at all.
    """
    shape = raw.translate(_SHAPE)
    is_suspicious = (
        (_LARGE_EXPONENT in shape and _has_number(raw, shape))
        or (len(raw) > len(_MANY_DIGITS) and _MANY_DIGITS in shape)
        # One letter is searched for far faster than a word.
        or (b"N" in raw and b"NaN" in raw)
        or (b"I" in raw and b"Infinity" in raw)
    )
    if not is_suspicious:
        return None
    try:
        json.loads(raw, parse_float=_read, parse_constant=_read, parse_int=len)
    except _Found as found:
        text = str(found)
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    except (ValueError, RecursionError):
        pass  # its parser says why
    return None


def _has_number(raw: bytes, shape: bytes) -> bool:
    """Say whether one of the exponents seems to be a number's, perhaps one in a string."""
    at = shape.find(_LARGE_EXPONENT)
    while at >= 0:
        mantissa = raw[max(0, at - _NEAR_BYTES) : at].rstrip(b"eE")
        before = mantissa.rstrip(_DIGITS + b".")
        if len(before) < len(mantissa):
            before = before.removesuffix(b"-")
            if not before or before[-1] in _BEFORE:
                return True
        at = shape.find(_LARGE_EXPONENT, at + 1)
    return False


def _read(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _Found(text)
    return number
