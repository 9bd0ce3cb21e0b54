"""What can become of a message, as values, and the errors that have an outcome of their own.

:mod:`~convotic_celery.runtime.delivery.outcome` decides between them. They pickle, for prefork.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from celery import exceptions as celery_exceptions

from convotic_celery.errors import ConvoticError

__all__ = [
    "Ack",
    "AckOutcome",
    "AlreadyFailed",
    "DeadLetterReason",
    "Defer",
    "Deferred",
    "Fail",
    "HandlerExited",
    "KeySucceeded",
    "RetryRun",
    "ReturnUnrun",
    "Run",
    "Settlement",
    "WorkerFault",
]

DeadLetterReason: TypeAlias = Literal[
    "max-retries-exceeded", "invalid", "rejected", "ack-deadline-exceeded", "worker-lost"
]


AckOutcome: TypeAlias = Literal[
    "succeeded", "dropped", "duplicate", "expired", "other_target", "revoked"
]


@dataclass(frozen=True, slots=True)
class Run:
    """Call the handler."""

    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge."""

    outcome: AckOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RetryRun:
    """Don't acknowledge; let the lease end after ``delay_seconds``: that is the redelivery."""

    delay_seconds: float
    #: The budget that this is held against.
    counts_as: Literal["failure", "loss"] = "failure"
    #: What a dead letter says if this was the last run, and its process dies before that is out.
    reason: DeadLetterReason = "max-retries-exceeded"
    error_type: str = ""
    error_message: str = ""
    #: False if the worker still has to write it to the store.
    recorded: bool = False
    #: The run that failed; 0: not known. For observers.
    attempt: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Defer:
    """Let the lease end after ``delay_seconds``; the handler was not called."""

    delay_seconds: float
    reason: str = ""
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """Publish to the dead-letter topic, acknowledge when that is confirmed."""

    reason: DeadLetterReason
    #: Runs that the message had.
    attempts: int
    error_type: str = ""
    error_message: str = ""
    #: The author's frames, see ``error_text.error_stack``; a line each, outermost first.
    error_stack: str = ""
    #: False if ``on_dead_letter`` has killed its process too often.
    calls_hook: bool = True
    #: Of the run, which knows them for certain: of the first publish, and of this dead letter.
    message_id: str = ""
    replay_count: int = 0
    replay_token: str = ""


@dataclass(frozen=True, slots=True)
class ReturnUnrun:
    """Nack: another worker gets it now."""


Settlement: TypeAlias = Ack | RetryRun | Defer | Fail | ReturnUnrun


class HandlerExited(ConvoticError):
    """A handler raised SystemExit, KeyboardInterrupt or the like; the worker goes on."""


class Deferred(ConvoticError):
    """The handler was not called: its key is busy, or the store is unavailable. No attempt."""

    def __init__(self, reason: str, delay_seconds: float) -> None:
        super().__init__(reason, delay_seconds)
        self.reason = reason
        self.delay_seconds = delay_seconds

    def __str__(self) -> str:
        return f"not run, {self.reason}; again in {self.delay_seconds:g} s"


class WorkerFault(Deferred):
    """The worker itself can't run anything now; that is not the message's fault."""


class KeySucceeded(celery_exceptions.Ignore):
    """A message with this key has succeeded already."""


class AlreadyFailed(ConvoticError):
    """The message fails without another run: earlier runs have used up one of its budgets."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail)
        self.fail = fail

    def __str__(self) -> str:
        return f"given up after {self.fail.attempts} runs: {self.fail.reason}"
