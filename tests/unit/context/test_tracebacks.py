"""Tracebacks as an author wants to read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from convotic_celery.context.delivery import Delivery
from convotic_celery.log import describe_error, fold_traceback
from convotic_celery.sdk.module import ConvoticModule


def broken() -> None:
    raise ValueError("no such shop")


def called_by_asyncio() -> None:
    async def handler() -> None:
        broken()

    asyncio.run(handler())


def fails_inside_the_framework() -> None:
    ConvoticModule(name="two words", version="1")


def catch(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError


def frames(text: str) -> list[str]:
    return [line.strip().rpartition(", in ")[2] for line in text.splitlines() if "File " in line]


def test_frames_before_the_author_s_are_left_out() -> None:
    """What called the handler does not help its author."""
    whole = describe_error(catch(called_by_asyncio), whole=True)
    _, _, inside = whole.partition(", in run_until_complete")

    assert "base_events.py" in whole
    folded = fold_traceback(
        f'Traceback (most recent call last):\n  File "{asyncio.__file__}", '
        f"line 1, in run_until_complete{inside}"
    )
    assert frames(folded) == ["handler", "broken"]
    assert folded.endswith("ValueError: no such shop")


def test_each_part_of_a_chain_begins_at_the_author_s_line() -> None:
    """Whatever a loop or a context manager has around it."""
    inner = catch(called_by_asyncio)
    assert inner.__traceback__ is not None
    outer = catch(broken)
    outer.__cause__ = inner.with_traceback(inner.__traceback__.tb_next.tb_next)  # type: ignore[union-attr]  # there are more

    text = describe_error(outer)

    assert "/asyncio/" in describe_error(outer, whole=True)
    assert frames(text)[:1] == ["handler"]
    assert "direct cause of the following" in text


def test_frames_behind_the_author_s_are_one_line() -> None:
    """Where the framework refuses what it was given."""
    text = describe_error(catch(fails_inside_the_framework))

    assert frames(text) == ["catch", "fails_inside_the_framework"]
    assert "of the framework\n" in text


def test_each_cause_is_folded_by_itself() -> None:
    """All errors of a chain begin at a line of the author's."""

    def chained() -> None:
        try:
            fails_inside_the_framework()
        except Exception as error:
            raise LookupError("no module") from error

    text = describe_error(catch(chained))

    assert text.count("of the framework") == 1
    assert "The above exception was the direct cause" in text
    assert text.endswith("LookupError: no module")


def test_an_error_of_the_framework_alone_is_whole() -> None:
    """It is a bug of ours, and all of it is wanted."""
    text = (
        "Traceback (most recent call last):\n"
        f'  File "{asyncio.__file__}", line 1, in run\n'
        "    run()\n"
        "ValueError: no"
    )

    assert fold_traceback(text) == text


@pytest.mark.parametrize("text", ["", "no traceback at all", '  File "x"'])
def test_other_text_is_left_as_it_is(text: str) -> None:
    """Whatever a child process has sent."""
    assert fold_traceback(text) == text


def test_with_debug_nothing_is_folded() -> None:
    """To look for a fault of the framework."""
    error = catch(fails_inside_the_framework)

    assert "of the framework" not in describe_error(error, whole=True)


def test_a_run_without_a_trace_has_no_field_for_it() -> None:
    """Most messages have none."""
    values: dict[str, Any] = {"handler": "a.b", "topic": "a", "message_id": "1"}

    assert "traceparent" not in Delivery(**values).log_fields()
    assert Delivery(**values, trace={"traceparent": "00-1-2-01"}).log_fields()["traceparent"]
