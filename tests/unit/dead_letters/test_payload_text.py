"""A payload as text: indented, and otherwise as it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convotic_celery.dead_letters.match import Match
from convotic_celery.dead_letters.payload_text import indent_json, payload_text
from convotic_celery.dead_letters.service import difference
from tests.support.generated import patient
from tests.unit.dead_letters.entries import make_dead_letter

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@patient
@given(VALUES, st.sampled_from([None, (",", ":"), (" , ", " : ")]), st.booleans())
def test_json_is_indented_as_the_standard_library_does(
    value: Any, separators: tuple[str, str] | None, ensure_ascii: bool
) -> None:
    """Whatever space and escapes it was written with."""
    text = json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)

    assert indent_json(text) == json.dumps(value, indent=2, ensure_ascii=ensure_ascii)


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "total": 19.90\n}',
        '{\n  "exact": 0.12345678901234567890123\n}',
        "[\n  1e400\n]",
        '{\n  "twice": 1,\n  "twice": 2\n}',
        '[\n  "\\u00e9 \\/"\n]',
        "1" * 5000,
    ],
)
def test_numbers_and_names_stay_as_they_are_written(text: str) -> None:
    """Who edits one field changes no other."""
    assert indent_json(text) == text
    assert indent_json(text.replace("\n", "").replace("  ", "")) == text


@pytest.mark.parametrize("text", ["", "no json", '{"half": ', "[" * 100_000])
def test_what_is_no_json_is_shown_as_it_is(text: str) -> None:
    """A preview, a text, and what is nested deeper than Python reads."""
    assert payload_text(text.encode()) == text


def test_bytes_are_no_text() -> None:
    """An editor would save something else."""
    assert payload_text(b"\xff\x00") is None


def test_a_difference_shows_each_digit() -> None:
    """And what is no text is compared as well."""
    assert "-19.90\n+19.9" in difference(b"19.90", b"19.9")
    assert "\\xff" in difference(b"\xff", b"1")


def test_a_payload_nested_too_deep_matches_nothing() -> None:
    """The others are found all the same."""
    dead = make_dead_letter(data=b"[" * 100_000)

    assert not Match(payload={"a": "1"}).takes(dead, dead.dead_lettered_at)
