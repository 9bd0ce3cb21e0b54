"""Exact sums: decimal amounts as scaled integers, never floats. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from convotic_celery.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["scale_totals", "unscale"]

#: Totals are kept in millionths: exact, and with Redis's 64-bit integers up to 9.2 trillion.
_SCALE_DIGITS = 6
_MAX_NAME_CHARACTERS = 500
#: Half of the 64-bit range, so that the store can take any single amount back.
_MAX_SCALED = 2**62


def scale_totals(amounts: Mapping[str, int | Decimal]) -> dict[str, str]:
    """Return hash fields and the integers to add, exactly; raises InvalidField."""
    return {f"total:{_total_name(name)}": str(_scale(name, v)) for name, v in amounts.items()}


def _total_name(name: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
        raise InvalidField(
            f"a total's name must be a string of 1 to {_MAX_NAME_CHARACTERS} characters"
        )
    return name


def _scale(name: str, amount: int | Decimal) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise InvalidField(
            f"total {name}: {amount!r} is {type(amount).__name__}; only int and Decimal are exact"
        )
    sign, digits, exponent = Decimal(amount).as_tuple()
    if not isinstance(exponent, int):
        raise InvalidField(f"total {name}: {amount} is not a number")
    # Integer arithmetic throughout: decimal's context would round beyond 28 digits.
    value, rest = int("".join(map(str, digits))), 0
    shift = exponent + _SCALE_DIGITS
    if abs(shift) > 100:  # noqa: PLR2004 - far out of range, and 10**shift is still cheap below it
        value, rest = (_MAX_SCALED, 0) if shift > 0 and value else (0, value)
    elif shift >= 0:
        value *= 10**shift
    else:
        value, rest = divmod(value, 10**-shift)
    if rest:
        raise InvalidField(f"total {name}: {amount} has more than {_SCALE_DIGITS} decimal places")
    if value >= _MAX_SCALED:
        raise InvalidField(f"total {name}: {amount} is too large to be summed exactly")
    return -value if sign else value


def unscale(text: str) -> Decimal:
    """Return the exact sum that the store keeps as ``text``, without trailing zeros."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.rjust(_SCALE_DIGITS + 1, "0")
    fraction = digits[-_SCALE_DIGITS:].rstrip("0")
    return Decimal(f"{sign}{digits[:-_SCALE_DIGITS]}{'.' if fraction else ''}{fraction}")
