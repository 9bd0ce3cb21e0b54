"""Exact sums: decimal amounts as scaled integers, never floats. Pure."""

from __future__ import annotations

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from convotic_celery.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["scale_totals", "unscale"]

#: Totals are kept in millionths: exact, and with Redis's 64-bit integers up to 9.2 trillion.
_SCALE_DIGITS = 6
_SCALE = 10**_SCALE_DIGITS
#: Far out of range; integers of so many digits are still cheap.
_MAX_DIGITS = 100
#: Never rounds, as the default context does beyond 28 digits.
_EXACTLY = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
_MAX_NAME_CHARACTERS = 500
#: Half of the 64-bit range, so that the store can take any single amount back.
_MAX_SCALED = 2**62

_EXACT = (int, Decimal)


def scale_totals(amounts: Mapping[str, int | Decimal]) -> tuple[list[str], list[str]]:
    """Return hash fields, and the integers to add to them, exactly; raises InvalidField."""
    return (
        [_total_field(name) for name in amounts],
        [str(_scale(name, amount)) for name, amount in amounts.items()],
    )


@lru_cache  # programs use a few names
def _total_field(name: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
        raise InvalidField(
            f"a total's name must be a string of 1 to {_MAX_NAME_CHARACTERS} characters"
        )
    return f"total:{name}"


def _scale(name: str, amount: int | Decimal) -> int:
    if isinstance(amount, bool) or not isinstance(amount, _EXACT):
        raise InvalidField(
            f"total {name}: {amount!r} is {type(amount).__name__}; only int and Decimal are exact"
        )
    scaled = amount * _SCALE if isinstance(amount, int) else _scale_decimal(name, amount)
    if not -_MAX_SCALED < scaled < _MAX_SCALED:
        raise InvalidField(f"total {name}: {amount} is too large to be summed exactly")
    return scaled


def _scale_decimal(name: str, amount: Decimal) -> int:
    if not amount.is_finite():
        raise InvalidField(f"total {name}: {amount} is not a number")
    if amount and amount.adjusted() > _MAX_DIGITS:
        return _MAX_SCALED
    exact = amount.scaleb(_SCALE_DIGITS, _EXACTLY)
    scaled = int(exact)
    if scaled != exact:
        raise InvalidField(f"total {name}: {amount} has more than {_SCALE_DIGITS} decimal places")
    return scaled


@lru_cache(maxsize=4_096)  # most sums are small counts
def unscale(text: str) -> Decimal:
    """Return the exact sum that the store keeps as ``text``, without trailing zeros."""
    whole, millionths = text[:-_SCALE_DIGITS], text[-_SCALE_DIGITS:]
    if not whole or whole == "-":  # less than one
        sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
        whole, millionths = f"{sign}0", digits.rjust(_SCALE_DIGITS, "0")
    return Decimal(whole if millionths == "000000" else f"{whole}.{millionths.rstrip('0')}")
