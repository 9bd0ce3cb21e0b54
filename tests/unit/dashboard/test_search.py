"""What a person types to find dead letters."""

from __future__ import annotations

import pytest

from convotic_celery.dashboard.search import asks_for_payload, parse_search
from convotic_celery.dead_letters import Match


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", Match()),
        ("Out of stock", Match(text="Out of stock")),
        ("error=OutOfStock tea", Match(error="OutOfStock", text="tea")),
        ('attributes.region="eu west"', Match(attributes={"region": "eu west"})),
        ("data.lines[0].sku=a=b", Match(payload={"lines[0].sku": "a=b"})),
        ("older=1.5h newer=2d", Match(older_than=5400, newer_than=172_800)),
        ("id=17 id=18", Match(ids=("17", "18"))),
        ("a=b", Match(text="a=b")),
        ("data.=1", Match(text="data.=1")),
    ],
)
def test_words_and_conditions(typed: str, meant: Match) -> None:
    """What is no condition is looked for as text."""
    assert parse_search(typed) == meant


@pytest.mark.parametrize("typed", ["older=soon", "'half"])
def test_what_cannot_be_meant_is_an_error(typed: str) -> None:
    """In words for the person who typed it."""
    with pytest.raises(ValueError, match=r"age|quotation"):
        parse_search(typed)


def test_the_page_knows_better() -> None:
    """On the page of one handler no search finds another's."""
    assert parse_search("handler=a", handler="b", state="archived") == Match(
        handler="b", state="archived"
    )


def test_payloads_are_asked_for() -> None:
    """By a value in the data or an attribute, not by the error."""
    assert asks_for_payload(parse_search("data.id=1"))
    assert asks_for_payload(parse_search("attributes.a=1"))
    assert not asks_for_payload(parse_search("error=a b"))
