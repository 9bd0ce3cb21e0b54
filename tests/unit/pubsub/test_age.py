"""How old something is, as command line and Flower show it."""

from __future__ import annotations

import pytest

from convotic_pubsub.age import show_age


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_an_age_has_its_largest_unit(seconds: float, text: str) -> None:
    """In whole ones: an hour less a second was "60m"."""
    assert show_age(seconds) == text
