"""What becomes of a message: the table of ``docs/delivery.md`` §Outcomes as one pure function.

:func:`settle` takes what happened and returns what to do, as values. Handler runs, Celery's worker,
the transport's policy and ``convotic_celery.testing`` all ask it; attempts are compared here only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import exceptions as celery_exceptions

from convotic_celery.errors import AckDeadlineExceeded, InvalidMessage
from convotic_celery.runtime.delivery.error_text import error_stack, error_text, error_type
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    AlreadyFailed,
    DeadLetterReason,
    Defer,
    Deferred,
    Fail,
    HandlerExited,
    KeySucceeded,
    RetryRun,
    ReturnUnrun,
    Run,
    Settlement,
)
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Retry

if TYPE_CHECKING:
    from convotic_celery.sdk.options import WorkerOptions

__all__ = [
    "Arrived",
    "Began",
    "Event",
    "HardLimit",
    "Raised",
    "Refused",
    "Returned",
    "Revoked",
    "Stopped",
    "WorkerLost",
    "final_error",
    "settle",
]


#: A lease can't end sooner.
MIN_DELAY_SECONDS = 1.0

#: A message whose ``on_dead_letter`` kills so many processes is dead-lettered without it.
_MAX_HOOK_LOSSES = 3

#: Characters of an error's text that are kept.
_MAX_TEXT = 1024

_DEADLINE_ERRORS = (AckDeadlineExceeded, SoftTimeLimitExceeded, TimeLimitExceeded)


#: ``retry_on`` is not asked about these.
_ALWAYS_RETRIED = (
    *_DEADLINE_ERRORS,
    HandlerExited,
    InvalidMessage,
    Retry,
    celery_exceptions.Reject,
    celery_exceptions.Retry,
)


# -- what can happen ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrived:
    """Pub/Sub delivered the message."""

    #: False if its attribute ``convotic-target`` names another handler.
    is_for_us: bool
    #: Since its publish; only needed where the handler has a ``max_message_age``.
    age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Began:
    """A redelivered message's run begins; the store says what became of the earlier ones."""

    #: Runs that raised or were stopped.
    failures: int
    #: Runs that began and did not end: their process died.
    losses: int
    #: What the last failure was.
    last_reason: DeadLetterReason = "max-retries-exceeded"
    error_type: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The run raised, Celery's control flow exceptions included."""

    error: Exception
    #: Since the handler was called.
    elapsed_seconds: float = 0.0
    #: 0..1, for a back-off's jitter.
    random: float = 0.5


@dataclass(frozen=True, slots=True)
class HardLimit:
    """The pool killed the run after its deadline and grace."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A child process died with the message."""

    elapsed_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The message can't be run at all: undecodable, or Celery rejected it."""

    reason: Literal["invalid", "rejected"]
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """Somebody revoked the task."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker shuts down."""


Event: TypeAlias = (
    Arrived | Began | Returned | Raised | HardLimit | WorkerLost | Refused | Revoked | Stopped
)


# -- the table ------------------------------------------------------------------------------------


@overload
def settle(event: Arrived, options: WorkerOptions) -> Run | Ack: ...
@overload
def settle(event: Began, options: WorkerOptions) -> Run | Fail: ...
@overload
def settle(event: Refused, options: WorkerOptions) -> Fail: ...
@overload
def settle(
    event: Returned | Raised | HardLimit | WorkerLost | Revoked | Stopped,
    options: WorkerOptions,
    *,
    attempt: int = 1,
) -> Settlement: ...
@overload
def settle(event: Event, options: WorkerOptions, *, attempt: int = 1) -> Run | Settlement: ...


def settle(  # noqa: PLR0911 - a table: a row each
    event: Event, options: WorkerOptions, *, attempt: int = 1
) -> Run | Settlement:
    """Return what becomes of a message.

    Args:
        event: What happened to it.
        options: Its handler's.
        attempt: Of the current run; 1 on the first.
    """
    match event:
        case Arrived():
            return _arrived(event, options)
        case Began():
            return _began(event, options)
        case Returned():
            return Ack("succeeded")
        case Raised():
            return _raised(event, options, attempt)
        case HardLimit():
            return _hard_limit(options, attempt)
        case WorkerLost():
            delay = max(MIN_DELAY_SECONDS, options.ack_deadline - event.elapsed_seconds)
            return RetryRun(delay, "loss", "worker-lost")
        case Refused():
            return _fail(event.reason, 0, event.error)
        case Revoked():
            return Ack("revoked")
        case Stopped():
            return ReturnUnrun()


def _arrived(event: Arrived, options: WorkerOptions) -> Run | Ack:
    if not event.is_for_us:
        return Ack("other_target")
    age = options.max_message_age
    return Ack("expired") if age is not None and event.age_seconds > age else Run()


def _began(event: Began, options: WorkerOptions) -> Run | Fail:
    lost = event.losses - options.max_worker_losses
    calls_hook = lost < _MAX_HOOK_LOSSES
    if _is_used_up(event.failures, options):  # its dead letter is not out, or its hook not called
        error = event.error_type, event.error_message
        return Fail(event.last_reason, event.failures, *error, calls_hook=calls_hook)
    if lost >= 0:
        runs = event.failures + event.losses
        error = "WorkerLostError", f"{event.losses} processes died while they ran it"
        return Fail("worker-lost", runs, *error, calls_hook=calls_hook)
    return Run(event.failures + 1)


def _raised(  # noqa: PLR0911 - rows as well
    event: Raised, options: WorkerOptions, attempt: int
) -> Settlement:
    error = event.error
    match error:
        case KeySucceeded():
            return Ack("duplicate", error_text(error))
        case Drop() | celery_exceptions.Ignore():
            return Ack("dropped", error_text(error) or "ignored by the handler")
        case Deferred():
            return Defer(error.delay_seconds, error.reason)
        case AlreadyFailed():
            return error.fail
    reason = _final_reason(error, options)
    if reason is not None:
        return _fail(reason, 0 if reason == "invalid" else attempt, final_error(error))
    used_up: DeadLetterReason = (
        "ack-deadline-exceeded" if _is_deadline(error) else "max-retries-exceeded"
    )
    if isinstance(error, InvalidMessage):
        used_up = "invalid"
    if _is_used_up(attempt, options):
        return _fail(used_up, attempt, final_error(error))
    delay = _delay(error, options, attempt, event.elapsed_seconds, event.random)
    return RetryRun(
        delay,
        "failure",
        used_up,
        error_type(error),
        error_text(error)[:_MAX_TEXT],
        attempt=attempt,
    )


def _hard_limit(options: WorkerOptions, attempt: int) -> RetryRun | Fail:
    error = TimeLimitExceeded(options.run_limit)
    if _is_used_up(attempt, options) and options.on_dead_letter is None:
        return _fail("ack-deadline-exceeded", attempt, error)
    # With a hook the next delivery fails it: the hook can't be called from here.
    return RetryRun(0.0, "failure", "ack-deadline-exceeded", error_type(error), str(error))


def _is_used_up(failures: int, options: WorkerOptions) -> bool:
    """Say whether a message with so many failed runs has no retry left."""
    return failures > options.max_retries


def _final_reason(error: Exception, options: WorkerOptions) -> DeadLetterReason | None:
    """Return why an error is final whatever the attempt; None if it may be retried."""
    if isinstance(error, InvalidMessage) and options.on_invalid == "dead_letter":
        return "invalid"
    is_rejected = isinstance(error, celery_exceptions.Reject) and not _requeues(error)
    if is_rejected or isinstance(error, DeadLetter):
        return "rejected"
    if _is_worth_retrying(error, options):
        return None
    return "ack-deadline-exceeded" if _is_deadline(error) else "rejected"


def _is_worth_retrying(error: BaseException, options: WorkerOptions) -> bool:
    """Say whether ``retry_on`` and ``no_retry_on`` allow a retry.

    ``retry_on`` is about what the handler's own code raises: an explicit ``Retry`` is obeyed, and a
    run that was stopped at its deadline is retried.
    """
    if isinstance(error, options.no_retry_on):
        return False
    if options.retry_on is None or isinstance(error, options.retry_on):
        return True
    return isinstance(error, _ALWAYS_RETRIED)


def _is_deadline(error: BaseException) -> bool:
    return isinstance(error, _DEADLINE_ERRORS)


def _requeues(reject: celery_exceptions.Reject) -> bool:
    return bool(reject.args[1])


def _fail(reason: DeadLetterReason, attempts: int, error: BaseException | None) -> Fail:
    if error is None:
        return Fail(reason, attempts)
    text = error_text(error)[:_MAX_TEXT]
    return Fail(reason, attempts, error_type(error), text, error_stack(error))


def final_error(error: Exception) -> Exception:
    """Return what is stored and shown for a message that fails.

    Celery's own control flow exceptions can't be left: its tracer would take them for what they
    mean to Celery. Nor MemoryError: Celery's worker ends itself on it.
    """
    match error:
        case celery_exceptions.Reject() if not _requeues(error):
            return DeadLetter(str(error.args[0] or ""))
        case celery_exceptions.Retry():
            return error.exc if isinstance(error.exc, Exception) else RuntimeError(str(error))
        case celery_exceptions.TaskPredicate() | MemoryError():
            return RuntimeError(f"{type(error).__name__}: {error_text(error)}")
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
    if _is_deadline(error):
        return 0.0  # it has waited already
    return max(MIN_DELAY_SECONDS, options.ack_deadline - elapsed)


def _seconds_until(when: object) -> float:
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (aware - datetime.now(UTC)).total_seconds()
    return float(when)  # type: ignore[arg-type]  # Celery documents a number or a datetime
