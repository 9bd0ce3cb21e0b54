"""The table of docs/delivery.md §Outcomes, row by row, against the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import exceptions as celery_exceptions

from convotic_celery.errors import AckDeadlineExceeded, InvalidMessage
from convotic_celery.runtime.delivery.outcome import (
    Arrived,
    Began,
    Event,
    HardLimit,
    Raised,
    Refused,
    Returned,
    Revoked,
    Stopped,
    WorkerLost,
    settle,
)
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    Defer,
    Deferred,
    Fail,
    KeySucceeded,
    RetryRun,
    ReturnUnrun,
)
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry

PAGE = Path(__file__).parents[3] / "docs" / "delivery.md"


class Row(NamedTuple):
    """A row of the page."""

    handler: str
    message: str
    state: str


class Play(NamedTuple):
    """One way to get to a row."""

    event: Event
    attempt: int = 1
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def read_rows() -> dict[str, Row]:
    """Return the table's rows by their first cell."""
    section = PAGE.read_text().partition("## Outcomes")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return {row[0]: Row(*row) for row in cells[1:]}


ROWS = read_rows()
LAST = 3  # of max_retries=2
TIMEOUT = AckDeadlineExceeded("orders", 30)

#: How each row is played, by the beginning of its first cell.
PLAYS: dict[str, list[Play]] = {
    "returns": [Play(Returned()), Play(Returned(), LAST)],
    "raises, retries left": [Play(Raised(ValueError())), Play(Raised(ValueError()), LAST - 1)],
    "raises, no retries left": [Play(Raised(ValueError()), LAST), Play(Raised(Retry()), LAST)],
    "raises an error that `retry_on`": [
        Play(Raised(ValueError()), 1, {"retry_on": OSError}),
        Play(Raised(ValueError()), 1, {"no_retry_on": ValueError}),
    ],
    "raises `Retry(delay=s)`": [
        Play(Raised(Retry(delay=5))),
        Play(Raised(celery_exceptions.Retry())),
    ],
    "raises `DeadLetter(reason)`": [
        Play(Raised(DeadLetter("no"))),
        Play(Raised(celery_exceptions.Reject("no"))),
    ],
    "raises `Drop(reason)`": [
        Play(Raised(Drop("old")), LAST),
        Play(Raised(celery_exceptions.Ignore())),
    ],
    "runs past `ack_deadline`, retries left": [Play(Raised(TIMEOUT)), Play(HardLimit())],
    "runs past `ack_deadline`, no retries left": [
        Play(Raised(TIMEOUT), LAST),
        Play(HardLimit(), LAST),
    ],
    "dies with its process": [Play(WorkerLost())],
    "was never called: it has died": [
        Play(Began(failures=0, losses=4)),
        Play(Began(failures=2, losses=9)),
    ],
    "was never called: its runs are used up": [
        Play(Began(failures=LAST, losses=0)),
        Play(Began(LAST, 0, "ack-deadline-exceeded")),
    ],
    "was never called: data is not JSON": [Play(Raised(InvalidMessage("no JSON")))],
    "was never called: the same": [Play(Raised(InvalidMessage()), 1, {"on_invalid": "retry"})],
    "was never called: Celery can't decode": [Play(Refused("invalid")), Play(Refused("rejected"))],
    "was never called: [its key has succeeded]": [Play(Raised(KeySucceeded("done")), LAST)],
    "was never called: revoked": [
        Play(Revoked()),
        Play(Arrived(is_for_us=True, age_seconds=61), 1, {"max_message_age": 60}),
        Play(Arrived(is_for_us=False)),
    ],
    "was never called: its key is busy": [Play(Raised(Deferred("its key is busy", 20.0)), LAST)],
    "was never called: the worker stops": [Play(Stopped(), LAST)],
}


def beginning_of(row: Row) -> str:
    (found,) = (each for each in PLAYS if row.handler.startswith(each))
    return found


def test_every_row_of_the_page_is_played() -> None:
    """And nothing is played that the page does not have."""
    assert len(ROWS) == len(PLAYS)
    assert {beginning_of(row) for row in ROWS.values()} == set(PLAYS)


def say(settlement: object) -> tuple[list[str], str]:  # noqa: PLR0911 - a row each
    """Return words that the page must have of a settlement, and Celery's state."""
    match settlement:
        case Ack(outcome="succeeded"):
            return ["is acknowledged"], "SUCCESS"
        case Ack(outcome="dropped" | "duplicate"):
            return ["is acknowledged"], "SUCCESS, the result says dropped"
        case Ack():
            return ["is acknowledged, and counted by its reason"], "none"
        case Fail(reason=reason):
            return ["goes to the dead-letter topic", reason], "FAILURE"
        case RetryRun(counts_as="loss"):
            return ["is delivered again", "counts as a loss"], "RETRY"
        case RetryRun():
            return ["is delivered again"], "RETRY"
        case Defer():
            return ["is delivered again later", "counts as no attempt"], "RETRY"
        case ReturnUnrun():
            return ["is returned", "counts as no attempt"], "none"
    raise AssertionError(settlement)


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_the_row_says_what_happens(row: Row) -> None:
    """The message's end and Celery's state, for each way to get to the row."""
    for play in PLAYS[beginning_of(row)]:
        options = WorkerOptions(**{"max_retries": 2, "max_worker_losses": 4, **play.options})
        settlement = settle(play.event, options, attempt=play.attempt)

        words, state = say(settlement)

        assert row.state.startswith(state), settlement
        for word in words:
            has_last_reason = "the reason of its last run" in row.message
            assert word in row.message or has_last_reason, settlement


def test_a_retry_waits_for_the_rest_of_the_ack_deadline() -> None:
    """As the row of a raise says; at least a second."""
    options = WorkerOptions(ack_deadline=30)

    early = settle(Raised(ValueError(), elapsed_seconds=4), options)
    late = settle(Raised(ValueError(), elapsed_seconds=45), options)

    assert isinstance(early, RetryRun)
    assert isinstance(late, RetryRun)
    assert (early.delay_seconds, late.delay_seconds) == (26.0, 1.0)
