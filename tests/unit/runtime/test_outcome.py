"""What a run's error means: the table of delivery.md §3, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import exceptions as celery_exceptions

from convotic_celery.errors import AckDeadlineExceeded, InvalidMessage
from convotic_celery.runtime.delivery.error_text import error_text, error_type
from convotic_celery.runtime.delivery.outcome import HardLimit, Raised, final_error, settle
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    AlreadyFailed,
    Fail,
    RetryRun,
    Settlement,
)
from convotic_celery.sdk.backoff import ConstantBackoff
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry


def decide(
    error: Exception, *, attempt: int = 1, elapsed: float = 4.0, **options: Any
) -> Settlement:
    return settle(
        Raised(error, elapsed, 0.5),
        WorkerOptions(**{"max_retries": 2, "ack_deadline": 30, **options}),
        attempt=attempt,
    )


def delay_of(settlement: Settlement) -> float:
    assert isinstance(settlement, RetryRun), settlement
    return settlement.delay_seconds


def reason_of(settlement: Settlement) -> str:
    assert isinstance(settlement, Fail), settlement
    return settlement.reason


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
    assert delay_of(decide(error)) == delay


def test_a_run_longer_than_its_deadline_waits_one_second() -> None:
    """A lapse can't be shorter than 1 s."""
    assert delay_of(decide(ValueError(), elapsed=45)) == 1.0


def test_a_moment_of_celerys_retry_is_a_delay() -> None:
    """Retry(when=datetime) counts from now."""
    decided = decide(celery_exceptions.Retry(when=datetime.now(UTC) + timedelta(seconds=90)))

    assert 88 < delay_of(decided) <= 90


@pytest.mark.parametrize("error", [ValueError(), AckDeadlineExceeded("orders", 30)])
def test_backoff_replaces_the_delay(error: Exception) -> None:
    """The option changes the delay of every failed run that says none itself."""
    assert delay_of(decide(error, backoff=ConstantBackoff(delay=3))) == 3.0


@pytest.mark.parametrize("attempt", [3, 4])
def test_the_last_attempt_is_final(attempt: int) -> None:
    """max_retries=2 means three runs; the third error is the message's end."""
    decided = decide(ValueError("no"), attempt=attempt)

    assert decided == Fail("max-retries-exceeded", attempt, "ValueError", "no")
    assert isinstance(decide(ValueError(), attempt=2), RetryRun)


@pytest.mark.parametrize("error", [DeadLetter("bad"), InvalidMessage("not JSON")])
def test_some_errors_are_final_at_once(error: Exception) -> None:
    """The handler gave it up, or the data can't be read."""
    assert isinstance(decide(error), Fail)
    assert final_error(error) is error


def test_reject_is_a_dead_letter() -> None:
    """Celery's Reject(requeue=False) dead-letters, with its reason."""
    decided = decide(celery_exceptions.Reject("bad order"))

    assert isinstance(decided, Fail)
    assert (decided.reason, decided.error_message) == ("rejected", "bad order")


def test_invalid_data_can_be_retried() -> None:
    """on_invalid="retry" is for schema roll-outs."""
    assert isinstance(decide(InvalidMessage("x"), on_invalid="retry"), RetryRun)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Drop("old"), "old"), (celery_exceptions.Ignore(), "ignored by the handler")],
)
def test_a_handler_can_decline(error: Exception, reason: str) -> None:
    """Drop and Celery's Ignore are acknowledged, whatever the attempt."""
    assert decide(error, attempt=9) == Ack("dropped", reason)


@pytest.mark.parametrize(
    "error", [celery_exceptions.Retry(), celery_exceptions.Reject(requeue=True), MemoryError()]
)
def test_what_celery_would_misread_is_replaced_at_the_end(error: Exception) -> None:
    """A final error is an ordinary one: Celery has its own plans with its control flow."""
    decided = decide(error, attempt=3)

    assert isinstance(decided, Fail)
    assert decided.error_type == "RuntimeError"
    assert isinstance(final_error(error), RuntimeError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeadLetter(), "rejected"),
        (celery_exceptions.Reject(), "rejected"),
        (InvalidMessage(), "invalid"),
        (AlreadyFailed(Fail("worker-lost", 6)), "worker-lost"),
        (AckDeadlineExceeded("orders", 1), "ack-deadline-exceeded"),
        (TimeLimitExceeded(), "ack-deadline-exceeded"),
        (ValueError(), "max-retries-exceeded"),
    ],
)
def test_each_final_error_has_its_reason(error: Exception, reason: str) -> None:
    """The dead letter says why."""
    assert reason_of(decide(error, attempt=3)) == reason


def test_error_types_are_dotted_names() -> None:
    """Builtins stand without their module."""
    assert error_type(ValueError()) == "ValueError"
    assert error_type(InvalidMessage()) == "convotic_celery.errors.InvalidMessage"


class Broken(Exception):
    """An error none of whose texts can be read."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


def test_an_error_without_a_text_is_decided_like_any_other() -> None:
    """Its __str__ raises, or returns no string."""
    assert error_text(Broken()) == "<no text: __str__ raised RuntimeError>"
    assert reason_of(decide(Broken(), attempt=3)) == "max-retries-exceeded"
    assert delay_of(decide(Broken())) == 26.0


def hook(dead: object, ctx: object) -> None:
    """Stand for a hook."""


def test_with_a_hook_the_hard_limit_is_never_the_end() -> None:
    """The next delivery fails it: only there somebody can call the hook."""
    options = WorkerOptions(max_retries=0, on_dead_letter=hook)

    assert delay_of(settle(HardLimit(), options)) == 0.0
    assert isinstance(settle(HardLimit(), WorkerOptions(max_retries=0)), Fail)
