"""The demo's arithmetic: what is printed, what it must be, and when the worker is killed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from convotic_celery.cli.demo.chaos import KILLS, split_into_portions
from convotic_celery.cli.demo.figures import Expected, Figures

FIGURES = Figures(
    published=6919,
    processed=6919,
    contacts=2357,
    units=16479,
    total=Decimal("244091.94"),
    dead_lettered=0,
    seconds=10.0,
)
EXPECTED = Expected(processed=6919, contacts=2357, units=16479, total=Decimal("244091.94"))


def make_orders(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"o-{n}", "customer_id": f"c-{n // 2}", "quantity": 2, "total": 0.1}
        for n in range(count)
    ]


def test_the_json_has_the_documented_keys() -> None:
    """`--json` prints these keys in this order, with plain numbers."""
    assert FIGURES.to_json() == {
        "published": 6919,
        "processed": 6919,
        "contacts": 2357,
        "units": 16479,
        "total": 244091.94,
        "dead_lettered": 0,
        "seconds": 10.0,
        "messages_per_second": 691.9,
    }


def test_the_orders_are_added_up_exactly() -> None:
    """Expected figures are counted from the orders, money to the cent."""
    assert Expected.of(make_orders(3)) == Expected(
        processed=3, contacts=2, units=6, total=Decimal("0.3")
    )


def test_right_figures_have_no_mismatch() -> None:
    """The figures of the issue pass."""
    assert EXPECTED.find_mismatches(FIGURES) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("published", 6918),
        ("processed", 6920),
        ("contacts", 2356),
        ("units", 16480),
        ("total", Decimal("244091.95")),
        ("dead_lettered", 1),
    ],
)
def test_each_wrong_figure_is_named(name: str, value: object) -> None:
    """A message lost, counted twice or dead-lettered shows in the figure concerned."""
    wrong = replace(FIGURES, **{name: value})  # type: ignore[arg-type]  # one field of each type

    (mismatch,) = EXPECTED.find_mismatches(wrong)

    assert mismatch.startswith(f"{name} is ")


def test_without_chaos_all_orders_are_one_portion() -> None:
    """A plain demo publishes everything at once and kills nothing."""
    (portion,) = split_into_portions(make_orders(7), chaos=False)

    assert (len(portion.orders), portion.processed_before_next) == (7, 7)
    assert not portion.kill_then


@pytest.mark.parametrize("count", [5, 23, 6919])
def test_chaos_kills_four_times_with_work_in_hand(count: int) -> None:
    """Each kill comes while orders of its portion are not processed, and none is left out."""
    orders = make_orders(count)
    portions = list(split_into_portions(orders, chaos=True))

    assert [order for portion in portions for order in portion.orders] == orders
    assert sum(portion.kill_then for portion in portions) == KILLS
    published = 0
    for portion in portions:
        published += len(portion.orders)
        assert (portion.processed_before_next < published) == portion.kill_then
