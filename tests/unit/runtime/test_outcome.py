"""What a run's error means: the table of delivery.md §3, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import exceptions as celery_exceptions

from convotic_celery.errors import AckDeadlineExceeded, InvalidMessage
from convotic_celery.runtime.delivery.outcome import (
    Again,
    Dropped,
    GiveUp,
    Verdict,
    error_type,
    judge,
    reason_of,
)
from convotic_celery.sdk.backoff import ConstantBackoff
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry


def verdict(error: Exception, *, attempt: int = 1, elapsed: float = 4.0, **options: Any) -> Verdict:
    return judge(
        error,
        WorkerOptions(**{"max_retries": 2, "ack_deadline": 30, **options}),
        attempt=attempt,
        elapsed_seconds=elapsed,
        random=0.5,
    )


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (ValueError("no"), 26.0),
        (Retry(delay=5), 5.0),
        (Retry(delay=0), 1.0),
        (Retry(), 26.0),
        (celery_exceptions.Retry(when=cast("Any", 7)), 7.0),
        (celery_exceptions.Retry(), 26.0),
        (celery_exceptions.Reject(requeue=True), 1.0),
        (AckDeadlineExceeded("orders", 30), 0.0),
        (SoftTimeLimitExceeded(), 0.0),
    ],
)
def test_a_failed_run_with_attempts_left_is_delivered_again(error: Exception, delay: float) -> None:
    """The wait is the rest of the ack deadline, or what the error says; at least 1 s."""
    assert verdict(error) == Again(delay)


def test_a_run_longer_than_its_deadline_waits_one_second() -> None:
    """A lapse can't be shorter than 1 s."""
    assert verdict(ValueError(), elapsed=45) == Again(1.0)


def test_a_moment_of_celerys_retry_is_a_delay() -> None:
    """Retry(when=datetime) counts from now."""
    decided = verdict(celery_exceptions.Retry(when=datetime.now(UTC) + timedelta(seconds=90)))

    assert isinstance(decided, Again)
    assert 88 < decided.delay_seconds <= 90


@pytest.mark.parametrize("error", [ValueError(), AckDeadlineExceeded("orders", 30)])
def test_backoff_replaces_the_delay(error: Exception) -> None:
    """The option changes the delay of every failed run that says none itself."""
    assert verdict(error, backoff=ConstantBackoff(delay=3)) == Again(3.0)


@pytest.mark.parametrize("attempt", [3, 4])
def test_the_last_attempt_is_final(attempt: int) -> None:
    """max_retries=2 means three runs; the third error is given up as it is."""
    error = ValueError("no")

    assert verdict(error, attempt=attempt) == GiveUp(error)
    assert isinstance(verdict(ValueError(), attempt=2), Again)


@pytest.mark.parametrize("error", [DeadLetter("bad"), InvalidMessage("not JSON")])
def test_some_errors_are_final_at_once(error: Exception) -> None:
    """The handler gave it up, or the data can't be read."""
    assert verdict(error) == GiveUp(error)


def test_reject_is_a_dead_letter() -> None:
    """Celery's Reject(requeue=False) gives up, with its reason."""
    decided = verdict(celery_exceptions.Reject("bad order"))

    assert isinstance(decided, GiveUp)
    assert isinstance(decided.error, DeadLetter)
    assert str(decided.error) == "bad order"


def test_invalid_data_can_be_retried() -> None:
    """on_invalid="retry" is for schema roll-outs."""
    assert isinstance(verdict(InvalidMessage("x"), on_invalid="retry"), Again)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Drop("old"), "old"), (celery_exceptions.Ignore(), "ignored by the handler")],
)
def test_a_handler_can_decline(error: Exception, reason: str) -> None:
    """Drop and Celery's Ignore are acknowledged, whatever the attempt."""
    assert verdict(error, attempt=9) == Dropped(reason)


@pytest.mark.parametrize(
    "error", [celery_exceptions.Retry(), celery_exceptions.Reject(requeue=True), MemoryError()]
)
def test_what_celery_would_misread_is_replaced_at_the_end(error: Exception) -> None:
    """A final error is an ordinary one: Celery has its own plans with its control flow."""
    decided = verdict(error, attempt=3)

    assert isinstance(decided, GiveUp)
    assert isinstance(decided.error, RuntimeError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeadLetter(), "rejected"),
        (celery_exceptions.Reject(), "rejected"),
        (InvalidMessage(), "invalid"),
        (WorkerLostError(), "worker-lost"),
        (AckDeadlineExceeded("orders", 1), "ack-deadline-exceeded"),
        (TimeLimitExceeded(), "ack-deadline-exceeded"),
        (ValueError(), "max-retries-exceeded"),
    ],
)
def test_each_final_error_has_its_reason(error: Exception, reason: str) -> None:
    """The dead letter says why."""
    assert reason_of(error) == reason


def test_error_types_are_dotted_names() -> None:
    """Builtins stand without their module."""
    assert error_type(ValueError()) == "ValueError"
    assert error_type(InvalidMessage()) == "convotic_celery.errors.InvalidMessage"
