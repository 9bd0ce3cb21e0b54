"""Worker options: the seed's defaults and names, ranges, and clear refusals."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import ValidationError

from convotic_celery.sdk import (
    ConstantBackoff,
    ExponentialBackoff,
    WorkerOptions,
    WorkerOptionsDict,
)
from convotic_celery.sdk.option_errors import describe_options


def test_defaults_are_the_seeds() -> None:
    """5 retries, 30 seconds, one at a time."""
    options = WorkerOptions()

    assert (options.max_retries, options.ack_deadline, options.concurrency) == (5, 30, 1)
    assert options.max_runs == 6


def test_camel_case_means_the_same() -> None:
    """The seed's option names are accepted."""
    options = WorkerOptions.model_validate({"maxRetries": 3, "ackDeadline": 60, "concurrency": 10})

    assert options == WorkerOptions(max_retries=3, ack_deadline=60, concurrency=10)


def test_durations_may_be_timedeltas() -> None:
    """All times are kept as seconds."""
    options = WorkerOptions(ack_deadline=timedelta(minutes=2), retention=timedelta(days=1))

    assert (options.ack_deadline, options.retention) == (120.0, 86_400.0)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_retries", [0, 99], [-1, 100]),
        ("ack_deadline", [1, 86_400], [0.9, 86_401, float("inf"), float("nan")]),
        ("concurrency", [1, 10_000], [0, 10_001]),
        ("deadline_grace", [0, 600], [-1, 601]),
        ("max_worker_losses", [1, 100], [0, 101]),
        ("retention", [600, 31 * 86_400], [599, 32 * 86_400]),
    ],
)
def test_ranges(name: str, good: list[float], bad: list[float]) -> None:
    """Both ends are allowed, what is beyond is refused."""
    for value in good:
        assert getattr(WorkerOptions.model_validate({name: value}), name) == value
    for value in bad:
        with pytest.raises(ValidationError, match=name):
            WorkerOptions.model_validate({name: value})


def test_misspelt_option_is_named_with_a_suggestion() -> None:
    """An unknown option is an error."""
    with pytest.raises(ValidationError, match=r"'maxRetires'; did you mean 'max_retries'\?"):
        WorkerOptions.model_validate({"maxRetires": 3})


def test_option_given_in_both_spellings_is_refused() -> None:
    """It is not guessed which one is meant."""
    with pytest.raises(ValidationError, match="given twice"):
        WorkerOptions.model_validate({"max_retries": 3, "maxRetries": 4})


@pytest.mark.parametrize(("concurrency", "expected"), [(1, 100), (10, 100), (50, 500)])
def test_waiting_retries_follow_concurrency(concurrency: int, expected: int) -> None:
    """The default is the larger of 100 and ten times concurrency."""
    assert WorkerOptions(concurrency=concurrency).max_waiting_retries == expected


@pytest.mark.parametrize(("max_retries", "expected"), [(0, 10), (5, 18), (99, 100)])
def test_services_own_dead_letter_policy_is_a_net(max_retries: int, expected: int) -> None:
    """Three times our runs, within 10..100."""
    assert WorkerOptions(max_retries=max_retries).max_delivery_attempts == expected


def test_replace_keeps_defaults_derived() -> None:
    """What was not given follows from what is given now."""
    options = WorkerOptions(max_retries=3).replace(concurrency=30, ackDeadline=10)

    assert (options.max_retries, options.ack_deadline, options.max_waiting_retries) == (3, 10, 300)


def test_options_pickle() -> None:
    """They travel to prefork children."""
    options = WorkerOptions(backoff=ExponentialBackoff(initial=2))

    assert pickle.loads(pickle.dumps(options)) == options


def test_keyword_form_knows_every_option() -> None:
    """The decorator's keywords and the model can't drift apart."""
    assert set(inspect.get_annotations(WorkerOptionsDict)) == set(WorkerOptions.model_fields)


def test_constant_backoff_waits_the_same_time() -> None:
    """Jitter takes away up to its part."""
    backoff = ConstantBackoff(delay=10, jitter=0.5)

    assert [backoff.delay_seconds(attempt, 0.0) for attempt in (1, 7)] == [10, 10]
    assert backoff.delay_seconds(1, 1.0) == 5


def test_exponential_backoff_doubles_up_to_its_maximum() -> None:
    """And does not overflow, however often a message failed."""
    backoff = ExponentialBackoff(initial=1, factor=2, maximum=60, jitter=0)

    waits = [backoff.delay_seconds(attempt, 0.5) for attempt in (1, 2, 3, 7, 5000)]

    assert waits == [1, 2, 4, 60, 60]


def test_backoff_never_waits_less_than_a_second() -> None:
    """A lapse can't express less."""
    assert ExponentialBackoff(jitter=1).delay_seconds(1, 1.0) == 1


def test_backoff_comes_from_json_too() -> None:
    """So that CONVOTIC_HANDLER_OPTIONS can set it."""
    options = WorkerOptions.model_validate({"backoff": {"kind": "exponential", "initial": 2}})

    assert options.backoff == ExponentialBackoff(initial=2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: ExponentialBackoff(initial=0.5, factor=0, jitter=3),
            (
                "ExponentialBackoff: initial must be at least 1; factor must be at least 1; "
                "jitter must be at most 1"
            ),
        ),
        (
            lambda: ExponentialBackoff(initial=10, maximum=5),
            "ExponentialBackoff: maximum (5) is less than initial (10)",
        ),
        (
            lambda: ConstantBackoff(maximum=3),  # type: ignore[call-arg]  # the point
            "ConstantBackoff: delay is missing; maximum is unknown here",
        ),
    ],
)
def test_a_backoff_that_can_t_be_is_told_in_one_line(make: Callable[[], object], said: str) -> None:
    """All that is wrong, with its rule, in our words."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()

    assert str(caught.value) == said


def test_all_wrong_options_are_told_at_once() -> None:
    """Unknown names, ranges, and a back-off from JSON."""
    with pytest.raises(ValidationError) as caught:
        WorkerOptions.model_validate(
            {
                "maxRetires": 3,
                "ackDeadline": -1,
                "concurrency": "two",
                "backoff": {"kind": "constant", "delay": 0},
            }
        )

    assert describe_options(caught.value) == (
        "unknown option 'maxRetires'; did you mean 'max_retries'?; "
        "ack_deadline must be at least 1; concurrency must be a whole number; "
        "backoff: ConstantBackoff: delay must be at least 1"
    )
