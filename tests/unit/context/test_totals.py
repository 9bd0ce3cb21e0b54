"""Exact sums: what is scaled comes back, and what would be inexact is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convotic_celery.context.totals import scale_totals, unscale
from convotic_celery.errors import InvalidField
from tests.support.generated import patient

AMOUNTS = st.decimals(-(10**12), 10**12, places=6) | st.integers(-(10**12), 10**12)


@patient
@given(AMOUNTS)
def test_amount_survives_scaling(amount: Decimal | int) -> None:
    """To the last of six places."""
    _, (scaled,) = scale_totals({"amount": amount})

    assert unscale(scaled) == amount


@patient
@given(st.lists(AMOUNTS, max_size=50))
def test_integer_sums_are_decimal_sums(amounts: list[Decimal | int]) -> None:
    """What the store adds up is what decimal arithmetic adds up."""
    scaled = [int(scale_totals({"amount": amount})[1][0]) for amount in amounts]

    assert unscale(str(sum(scaled))) == sum(map(Decimal, amounts), Decimal(0))


@pytest.mark.parametrize(
    ("amount", "scaled"),
    [
        (Decimal("29.33"), "29330000"),
        (Decimal("-0.01"), "-10000"),
        (Decimal("1E+3"), "1000000000"),
        (Decimal("0E-50"), "0"),
        (Decimal("1.10000000000000000000000000000000"), "1100000"),
        (2, "2000000"),
    ],
)
def test_amounts_are_millionths(amount: Decimal | int, scaled: str) -> None:
    """However the decimal is written."""
    assert scale_totals({"amount": amount}) == (["total:amount"], [scaled])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", "0"), ("1", "0.000001"), ("-1", "-0.000001"), ("29330000", "29.33"), ("10000000", "10")],
)
def test_sums_are_written_plainly(text: str, expected: str) -> None:
    """Without exponent and without trailing zeros."""
    assert str(unscale(text)) == expected


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (0.1, "only int and Decimal are exact"),
        (True, "only int and Decimal are exact"),
        (Decimal("0.0000001"), "more than 6 decimal places"),
        (Decimal("1E-500"), "more than 6 decimal places"),
        (Decimal("1E+500"), "too large"),
        (Decimal(5_000_000_000_000), "too large"),
        (Decimal("NaN"), "is not a number"),
        (Decimal("-Infinity"), "is not a number"),
    ],
)
def test_inexact_amount_is_refused(amount: Decimal, reason: str) -> None:
    """With the total's name and the reason."""
    with pytest.raises(InvalidField, match=f"total amount: .*{reason}"):
        scale_totals({"amount": amount})
