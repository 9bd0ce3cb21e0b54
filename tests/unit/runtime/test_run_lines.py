"""What a worker logs of runs: one line each, with what a person does next."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from convotic_celery.log import LINE_ATTRIBUTE, TextFormatter
from convotic_celery.runtime.delivery.observing import (
    MessageSettled,
    ObservedMessage,
    Observers,
)
from convotic_celery.runtime.delivery.payload import unknown_facts
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    Defer,
    Fail,
    RetryRun,
    ReturnUnrun,
    Settlement,
)
from convotic_celery.runtime.worker.run_lines import RunLines
from tests.unit.runtime.support import define


def failed() -> BaseException:
    try:
        raise RuntimeError("card declined")  # noqa: TRY301 - its traceback is wanted
    except RuntimeError as error:
        return error


def log_line(
    caplog: pytest.LogCaptureFixture, settlement: Settlement, *, attempt: int = 1, **facts: Any
) -> tuple[int, str]:
    """Return the level and the line for people of a settled message."""
    message = ObservedMessage(define(max_retries=1), unknown_facts("18"), "task")
    message.facts["attempt"] = attempt
    event = MessageSettled(message, settlement, 1_000_000.0, began_at=999_999.995, **facts)
    with caplog.at_level(logging.INFO, "convotic.runs"):
        RunLines().message_settled(event)
    (record,) = caplog.records
    line = TextFormatter().format(record)
    return record.levelno, re.sub(r"\d\d:\d\d:\d\d", "12:01:34", line)


@pytest.mark.parametrize(
    ("settlement", "line"),
    [
        (Ack("succeeded"), "✓ orders.new.shop 18 5 ms"),
        (Ack("dropped", "no order"), "- orders.new.shop 18 dropped: no order"),
        (
            Ack("duplicate", "a message with the same data.id has succeeded: 7"),
            "- orders.new.shop 18 skipped: a message with the same data.id has succeeded: 7",
        ),
        (
            Defer(30, "its key is busy"),
            "~ orders.new.shop 18 not run, its key is busy; again in 30 s at 12:01:34",
        ),
        (ReturnUnrun(), "- orders.new.shop 18 returned unrun: this worker stops"),
    ],
)
def test_each_outcome_has_its_line(
    caplog: pytest.LogCaptureFixture, settlement: Settlement, line: str
) -> None:
    """At INFO, with the reason."""
    assert log_line(caplog, settlement) == (logging.INFO, f"12:01:34 {line}")


def test_the_first_failure_has_its_traceback_and_the_time_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the author's line on."""
    retry = RetryRun(30, "failure", error_type="RuntimeError", error_message="no", attempt=1)

    level, text = log_line(caplog, retry, error=failed())

    line, *below = text.splitlines()
    assert level == logging.WARNING
    assert line == (
        "12:01:34 ↻ orders.new.shop 18 run 1 of 2 failed after 5 ms, again in 30 s at 12:01:34: "
        "RuntimeError: no"
    )
    assert [each.strip() for each in below[1:] if "^^" not in each] == [
        f'File "{__file__}", line {failed.__code__.co_firstlineno + 2}, in failed',
        'raise RuntimeError("card declined")  # noqa: TRY301 - its traceback is wanted',
        "RuntimeError: card declined",
    ]


def test_a_further_failure_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback has been there."""
    retry = RetryRun(0, "failure", error_type="a.b.Refused", error_message="no\nno", attempt=2)

    _, text = log_line(caplog, retry, attempt=2, error=failed())

    assert text == (
        "12:01:34 ↻ orders.new.shop 18 run 2 of 2 failed after 5 ms, again at once: Refused: no no"
    )


def test_a_dead_letter_says_how_to_see_it(caplog: pytest.LogCaptureFixture) -> None:
    """At ERROR, with its reason, its last error and the command."""
    fail = Fail("max-retries-exceeded", 2, "RuntimeError", "card declined")

    assert log_line(caplog, fail, error=failed()) == (
        logging.ERROR,
        (
            "12:01:34 ✗ orders.new.shop 18 dead letter after 2 runs, max-retries-exceeded: "
            "RuntimeError: card declined (convotic dlq show 18)"
        ),
    )


def test_the_text_of_a_child_is_folded_too(caplog: pytest.LogCaptureFixture) -> None:
    """prefork sends tracebacks as text."""
    fail = Fail("rejected", 1, "RuntimeError", "no")
    traceback = (
        "Traceback (most recent call last):\n"
        f'  File "{logging.__file__.replace("logging", "asyncio")}", line 1, in run\n'
        "    run()\n"
        '  File "/shop.py", line 2, in pay\n'
        "    pay()\n"
        "RuntimeError: no"
    )

    _, text = log_line(caplog, fail, traceback=traceback)

    assert [line.strip() for line in text.splitlines()[1:]] == [
        "Traceback (most recent call last):",
        'File "/shop.py", line 2, in pay',
        "pay()",
        "RuntimeError: no",
    ]


def test_other_formatters_see_a_whole_sentence(caplog: pytest.LogCaptureFixture) -> None:
    """An application's own logging has handler, message and outcome in the message."""
    log_line(caplog, Ack("succeeded"))

    assert caplog.messages == ["orders.new.shop 18 succeeded in 5 ms"]
    assert getattr(caplog.records[0], LINE_ATTRIBUTE).text == "5 ms"


def test_successes_that_are_not_logged_cost_nothing() -> None:
    """They are not logged."""
    observers = Observers()
    observers.add(RunLines(successes=False))

    assert observers.settled
    assert not observers.succeeded
