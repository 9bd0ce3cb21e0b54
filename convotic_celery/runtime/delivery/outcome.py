"""What a run's error means for its message. Pure: the table of ``docs/delivery.md`` §3 as code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import exceptions as celery_exceptions

from convotic_celery.errors import AckDeadlineExceeded, ConvoticError, InvalidMessage
from convotic_celery.sdk.error_types import dotted_name
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.attributes import DeadLetterReason
    from convotic_celery.sdk.options import WorkerOptions

__all__ = [
    "Again",
    "Dropped",
    "Duplicate",
    "GiveUp",
    "GivenUp",
    "HandlerExited",
    "Later",
    "Postponed",
    "Verdict",
    "count_hook_losses",
    "error_type",
    "judge",
    "reason_of",
]

#: A lapse can't be shorter.
MIN_DELAY_SECONDS = 1.0

#: A message whose ``on_dead_letter`` takes so many processes down is given up without it.
_MAX_HOOK_LOSSES = 3

_DEADLINE_ERRORS = (AckDeadlineExceeded, SoftTimeLimitExceeded, TimeLimitExceeded)


class HandlerExited(ConvoticError):
    """A handler raised SystemExit, KeyboardInterrupt or the like; the worker goes on."""


class Postponed(ConvoticError):
    """The message was not run: its key is busy, or the store away. Counts as no attempt."""

    def __init__(self, reason: str, delay_seconds: float) -> None:
        super().__init__(reason, delay_seconds)
        self.reason = reason
        self.delay_seconds = delay_seconds

    def __str__(self) -> str:
        return f"not run, {self.reason}; again in {self.delay_seconds:g} s"


class GivenUp(ConvoticError):
    """The message is given up without another run: what became of the earlier ones says so."""

    def __init__(self, reason: DeadLetterReason, attempts: int) -> None:
        super().__init__(reason, attempts)
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        return f"given up after {self.attempts} deliveries: {self.reason}"


class Duplicate(celery_exceptions.Ignore):
    """A message with this key has succeeded already; this one is acknowledged and counted."""


#: What ``retry_on`` is not asked about.
_ALWAYS_RETRIED = (
    *_DEADLINE_ERRORS,
    HandlerExited,
    InvalidMessage,
    Retry,
    celery_exceptions.Reject,
    celery_exceptions.Retry,
)


@dataclass(frozen=True, slots=True)
class Again:
    """The message is delivered again after ``delay_seconds``; one failure is counted."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """``error`` is final: the message goes to the dead-letter topic."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Dropped:
    """The message is acknowledged without having been done."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """The message is delivered again after ``delay_seconds``; nothing is counted."""

    delay_seconds: float


Verdict: TypeAlias = Again | GiveUp | Dropped | Later


def judge(
    error: Exception,
    options: WorkerOptions,
    *,
    attempt: int,
    elapsed_seconds: float,
    random: float,
) -> Verdict:
    """Say what follows from a run that raised.

    Args:
        error: What it raised; Celery's own control flow exceptions included.
        options: The handler's.
        attempt: 1 on the first run.
        elapsed_seconds: Since the run began.
        random: 0..1, for a back-off's jitter.
    """
    if isinstance(error, Postponed):
        return Later(error.delay_seconds)
    if isinstance(error, Drop | celery_exceptions.Ignore):
        return Dropped(str(error) or "ignored by the handler")
    if isinstance(error, celery_exceptions.Reject):
        reason, requeue = error.args
        if not requeue:
            return GiveUp(DeadLetter(str(reason or "")))
    is_invalid = isinstance(error, InvalidMessage) and options.on_invalid == "dead_letter"
    if is_invalid or isinstance(error, DeadLetter):
        return GiveUp(error)
    if attempt > options.max_retries or not is_worth_retrying(error, options):
        return GiveUp(_final(error))
    return Again(_delay(error, options, attempt, elapsed_seconds, random))


def is_worth_retrying(error: BaseException, options: WorkerOptions) -> bool:
    """Say whether ``retry_on`` and ``no_retry_on`` allow a retry.

    ``retry_on`` is about what the handler's own code raises: who asks for a retry gets it, and a
    run that was stopped at its deadline is retried.
    """
    if isinstance(error, options.no_retry_on):
        return False
    if options.retry_on is None or isinstance(error, options.retry_on):
        return True
    return isinstance(error, _ALWAYS_RETRIED)


def reason_of(error: BaseException, options: WorkerOptions | None = None) -> DeadLetterReason:
    """Return the ``convotic-dead-letter-reason`` of a final error."""
    match error:
        case DeadLetter() | celery_exceptions.Reject():
            return "rejected"
        case InvalidMessage():
            return "invalid"
        case WorkerLostError():
            return "worker-lost"
        case GivenUp():
            return error.reason
    if is_deadline(error):
        return "ack-deadline-exceeded"
    is_refused = options is not None and not is_worth_retrying(error, options)
    return "rejected" if is_refused else "max-retries-exceeded"


def is_deadline(error: BaseException) -> bool:
    """Say whether a run was stopped for having taken too long."""
    return isinstance(error, _DEADLINE_ERRORS)


def count_hook_losses(options: WorkerOptions) -> int:
    """Return how many processes a message may take down while its hook is told; 0: no hook."""
    return 0 if options.on_dead_letter is None else _MAX_HOOK_LOSSES


def error_type(error: BaseException) -> str:
    """Return the dotted name of an error's class; builtins without their module."""
    return dotted_name(type(error))


def _final(error: Exception) -> Exception:
    """Return what is stored and shown for the last attempt.

    Celery's own control flow exceptions can't be left: its tracer would take them for what they
    mean to Celery. Nor MemoryError: Celery's worker ends itself on it.
    """
    if isinstance(error, celery_exceptions.Retry):
        return error.exc if isinstance(error.exc, Exception) else RuntimeError(str(error))
    if isinstance(error, celery_exceptions.TaskPredicate | MemoryError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _delay(
    error: Exception, options: WorkerOptions, attempt: int, elapsed: float, random: float
) -> float:
    match error:
        case Retry(delay=float() | int()):
            return max(MIN_DELAY_SECONDS, float(error.delay or 0))
        case celery_exceptions.Retry(when=when) if when is not None:
            return max(MIN_DELAY_SECONDS, _seconds_until(when))
        case celery_exceptions.Reject():  # requeue=True: at once
            return MIN_DELAY_SECONDS
    if options.backoff is not None:
        return options.backoff.delay_seconds(attempt, random)
    if is_deadline(error):
        return 0.0  # it has waited already
    return max(MIN_DELAY_SECONDS, options.ack_deadline - elapsed)


def _seconds_until(when: object) -> float:
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (aware - datetime.now(UTC)).total_seconds()
    return float(when)  # type: ignore[arg-type]  # Celery documents a number or a datetime
