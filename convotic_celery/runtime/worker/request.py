"""How a handler's run ends for its message: Celery's ``Request``, settling on Pub/Sub.

Celery knows one thing to do with a message, to acknowledge it; here a failed run must *not* be
acknowledged, and a final one has to reach the dead-letter topic first. So each of Celery's outcomes
is mapped to exactly one settlement of the message (see ``docs/architecture.md``), with the events
that monitors expect: ``task-retried`` for every attempt but the last, ``task-failed`` only for
that.

``on_success`` and ``execute_using_pool`` are not overridden: Celery replaces both in a subclass of
this class (``celery.worker.request.create_request_cls``).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from billiard.einfo import (  # type: ignore[attr-defined]  # not in celery-types
    ExceptionInfo,
    ExceptionWithTraceback,
)
from celery import signals
from celery.exceptions import Ignore, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.utils.serialization import get_pickled_exception
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.encoding import safe_repr, safe_str

from convotic_celery.runtime.delivery.attributes import Failure, cut_utf8, dead_letter_attributes
from convotic_celery.runtime.delivery.counters import Outcome, outcomes
from convotic_celery.runtime.delivery.outcome import (
    Duplicate,
    Postponed,
    count_hook_losses,
    error_type,
    reason_of,
)

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.attributes import DeadLetterReason
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["HandlerRequest", "SettledMessage"]

logger = logging.getLogger(__name__)


class SettledMessage(Protocol):
    """What this needs of ``convotic_pubsub.kombu.channel.Message``; see docs/architecture.md."""

    def started(self, hold_seconds: float) -> None:
        """Keep the lease at most so long from now."""

    def lapse(self, delay_seconds: float, *, failure: bool = True) -> None:
        """Let the lease end."""

    def postpone(self, delay_seconds: float) -> None:
        """Let the lease end; it was not run."""

    def dead_letter(self, attributes: Mapping[str, str]) -> None:
        """Publish a copy with these attributes added, then acknowledge."""

    def hand_back(self) -> None:
        """Return it unrun."""

    def ack(self) -> None:
        """Acknowledge."""


class HandlerRequest(Request):
    """One delivery of one message to one handler, on the worker's side.

    Its callbacks run on whatever thread the pool has; the message's methods are thread-safe and
    only the first settlement counts.
    """

    #: Celery's, missing in celery-types.
    _context: Any
    #: Until when the lease is kept, by the monotonic clock; before the run, for ever.
    _held_until = math.inf

    # -- what Celery and the pool call -----------------------------------------------------------

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note that the handler begins: from now on the lease is held for its ack deadline."""
        self.hold(self.run_limit)
        super().on_accepted(pid, time_accepted)

    @property
    def run_limit(self) -> float:
        """Seconds that the run may take."""
        return self._definition.options.run_limit

    def hold(self, seconds: float) -> None:
        """Keep the lease for a run of so many seconds from now, and the time to settle it."""
        held = seconds + self._definition.options.deadline_grace
        self._held_until = time.monotonic() + held
        self._delivery.started(held)

    @property
    def is_overdue(self) -> bool:
        """True if it still runs although its lease has ended: plain code that nobody could stop."""
        return not self.acknowledged and time.monotonic() > self._held_until

    def acknowledge(self) -> None:
        """Acknowledge: the handler returned, or the message was revoked or has expired."""
        if not self.acknowledged:
            self._settle("succeeded", self._delivery.ack)

    def reject(self, requeue: bool = False) -> None:
        """Give the message up, or back: what Celery does with a request that it can't run."""
        if self.acknowledged:
            return
        if requeue:
            self.hand_back()
        else:
            self._dead_letter(ValueError("Celery rejected the request"), "rejected")

    def hand_back(self) -> None:
        """Return the message unrun; this counts as no attempt."""
        state.task_ready(self)
        self._settle("handed_back", self._delivery.hand_back)

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """Let the lease lapse after the delay that the task chose; that is the redelivery."""
        retry = _unwrap(exc_info.exception)
        if isinstance(retry.exc, Postponed):
            self._postpone(retry.exc)
            return
        self._retry(exc_info, retry.exc or retry, float(retry.when or 0.0), failure=True)

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Settle a run that raised, was stopped, or took its process down.

        Args:
            exc_info: What it raised.
            send_failed_event: False keeps monitors out of it.
            return_ok: True if the tracer has recorded the failure; else nobody has.
        """
        error = _unwrap(exc_info.exception)
        if isinstance(error, Retry):
            state.task_ready(self)
            self.on_retry(exc_info)
        elif isinstance(error, Ignore):
            self._drop(str(error), "duplicate" if isinstance(error, Duplicate) else "dropped")
        elif self._was_stopped_by_us(error):
            self.hand_back()
        elif isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            self._on_worker_lost(exc_info, error)
        elif isinstance(error, TimeLimitExceeded):
            self._on_hard_limit(exc_info, error)
        else:
            self._fail(exc_info, error, recorded=return_ok, announced=send_failed_event)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Settle a run that the pool gave up at its hard limit.

        Billiard calls ``on_failure`` first and then this; our pool calls only this.
        """
        if soft:
            super().on_timeout(soft, timeout)
        elif not self.acknowledged:
            error = TimeLimitExceeded(timeout)
            try:
                raise error
            except TimeLimitExceeded:
                self._on_hard_limit(ExceptionInfo(), error)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002 - it is always safe
        """Return what ``inspect active`` shows; the data as (shortened) text, it is bytes."""
        shown = super().info(safe=True)
        return {**shown, "attempt": self._facts["attempt"]} if self._facts else shown

    # -- outcomes --------------------------------------------------------------------------------

    def _retry(
        self, exc_info: ExceptionInfo, error: BaseException, delay: float, *, failure: bool
    ) -> None:
        if self.acknowledged:
            return
        self._settle("retried", lambda: self._delivery.lapse(delay, failure=failure))
        self.send_event(
            "task-retried", exception=safe_repr(error), traceback=safe_str(exc_info.traceback)
        )

    def _postpone(self, postponed: Postponed) -> None:
        """Let the message come again later; the handler was not called, so nothing is counted."""
        state.task_ready(self)
        delay = postponed.delay_seconds
        self._settle("postponed", lambda: self._delivery.postpone(delay))
        self.send_event("task-retried", exception=safe_repr(postponed), traceback="")

    def _drop(self, reason: str, outcome: Outcome = "dropped") -> None:
        """Acknowledge what the handler declined; monitors see a success with that result."""
        state.task_ready(self, successful=True)
        if self.acknowledged:
            return
        self._settle(outcome, self._delivery.ack)
        result = repr({"dropped": reason})
        self.send_event("task-succeeded", result=result, runtime=self._elapsed_seconds)

    def _on_worker_lost(self, exc_info: ExceptionInfo, error: BaseException) -> None:
        """A child died with the message: that is a loss, not a failure, and has its own budget."""
        lost = error
        if not isinstance(error, WorkerLostError):
            lost = WorkerLostError(f"Worker exited prematurely: {error!r}.")
        state.task_ready(self)
        options = self._definition.options
        losses = self._facts["losses"] + 1 if self._facts else 1
        if losses >= options.max_worker_losses + count_hook_losses(options):
            self._fail(exc_info, lost, recorded=False)
            return
        logger.error(
            "%s[%s] took its process down (%d of %d times): %s",
            self.name,
            self.id,
            losses,
            options.max_worker_losses,
            lost,
        )
        delay = max(1.0, options.ack_deadline - self._elapsed_seconds)
        self._retry(exc_info, lost, delay, failure=False)

    def _on_hard_limit(self, exc_info: ExceptionInfo, error: TimeLimitExceeded) -> None:
        state.task_ready(self)
        options = self._definition.options
        is_last = self._attempt > options.max_retries and options.on_dead_letter is None
        if is_last or self._gives_up:
            self._fail(exc_info, error, recorded=False)
            return
        logger.error("Hard time limit exceeded for %s[%s]: %s", self.name, self.id, error)
        self._retry(exc_info, error, 0.0, failure=True)

    def _fail(
        self,
        exc_info: ExceptionInfo,
        error: BaseException,
        *,
        recorded: bool,
        announced: bool = True,
    ) -> None:
        """Give the message up, and tell so: this was its last attempt."""
        state.task_ready(self)
        if self.acknowledged:
            return
        # A run that was only to call the hook has its reason already, however it ended.
        reason = self._gives_up or reason_of(error, self._definition.options)
        self._dead_letter(error, reason)
        if not recorded:
            self._record_failure(exc_info, error)
        if announced:
            self.send_event(
                "task-failed",
                exception=safe_repr(get_pickled_exception(_unwrap(exc_info.exception))),
                traceback=safe_str(exc_info.traceback),
            )

    def _record_failure(self, exc_info: ExceptionInfo, error: BaseException) -> None:
        """Do what Celery's tracer does for a failure, for one that the tracer did not see."""
        logger.error("%s[%s] failed: %r", self.name, self.id, error)
        backend: Any = self.task.backend
        backend.mark_as_failure(
            self.id, error, request=self._context, store_result=self.store_errors
        )
        signals.task_failure.send(
            sender=self.task,
            task_id=self.id,
            exception=error,
            args=self.args,
            kwargs=self.kwargs,
            traceback=exc_info.traceback,
            einfo=exc_info,
        )

    def _dead_letter(self, error: BaseException, reason: Any) -> None:
        facts = self._facts
        failure = Failure(
            reason=reason,
            message_id=facts["message_id"] if facts else self.id,
            attempts=0 if reason == "invalid" else self._attempt,
            subscription=self._definition.subscription,
            topic=self._definition.topic,
            error_type=error_type(error),
            error_message=cut_utf8(str(error)),
            published_at=(
                datetime.fromisoformat(facts["published_at"]) if facts else datetime.now(UTC)
            ),
            replay_count=facts["replay_count"] if facts else 0,
        )
        attributes = dead_letter_attributes(failure)
        self._settle("dead_lettered", lambda: self._delivery.dead_letter(attributes))

    # -- state -----------------------------------------------------------------------------------

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Acknowledge a revoked or expired message, and count it as that."""
        if not self.acknowledged:
            self._settle("revoked", self._delivery.ack)
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]  # untyped

    def _settle(self, outcome: Outcome, settle: Callable[[], None]) -> None:
        if self.acknowledged:
            return
        self.acknowledged = True
        settle()
        outcomes.count(self.name, outcome)

    def _was_stopped_by_us(self, error: BaseException) -> bool:
        """Say whether a shutdown stopped the run: then it is nobody's failure.

        A revoked one was acknowledged when it was revoked.
        """
        if isinstance(error, Terminated):
            return True
        cancelled = getattr(self, "_already_cancelled", False) or bool(state.should_terminate)
        return cancelled and isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt)

    @property
    def _delivery(self) -> SettledMessage:
        message: SettledMessage = self.message
        return message

    @property
    def _definition(self) -> HandlerDefinition:
        definition: HandlerDefinition = self.task.definition  # type: ignore[attr-defined]  # HandlerTask's
        return definition

    @property
    def _facts(self) -> MessageFacts | None:
        """What Pub/Sub said; None for a message in Celery's own envelope, which can't be run."""
        facts: MessageFacts | None = self.request_dict.get("convotic")
        return facts

    @property
    def _gives_up(self) -> DeadLetterReason | None:
        """Why the message is given up, if this run only calls ``on_dead_letter``."""
        return self._facts.get("give_up") if self._facts else None

    @property
    def _elapsed_seconds(self) -> float:
        """Time since the run began; 0 before."""
        return 0.0 if self.time_start is None else max(0.0, time.time() - self.time_start)

    @property
    def _attempt(self) -> int:
        return self._facts["attempt"] if self._facts else 1


def _unwrap(error: Any) -> Any:
    return error.exc if isinstance(error, ExceptionWithTraceback) else error
