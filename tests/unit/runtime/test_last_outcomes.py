"""How the last outcomes of handlers are written down."""

from __future__ import annotations

import json
from collections import deque

import pytest

from convotic_celery.runtime.delivery.last_outcomes import remove_written, to_text


@pytest.mark.parametrize("reason", ["", "größer", "half a pair: \ud83d"])
def test_any_reason_is_read_as_it_was_written(reason: str) -> None:
    """Text of an outcome is JSON whatever the reason; also one that is no UTF-8."""
    outcome = ("17", "a-task", "dropped", 1764325000.25, 1, None, reason)
    text = to_text(outcome)
    text.encode()  # as the store gets it
    assert json.loads(text) == [*outcome]


@pytest.mark.parametrize(("newer", "left"), [("", ""), ("d", "d"), ("def", "def")])
def test_what_comes_during_a_slow_write_is_kept(newer: str, left: str) -> None:
    """Also where it has pushed all out that is being written: the store answers after seconds."""
    noted = deque("abc", maxlen=3)
    written = list(noted)
    noted.extend(newer)

    remove_written(noted, written)

    assert "".join(noted) == left
