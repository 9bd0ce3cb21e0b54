"""How a handler's run ends for its message: Celery's ``Request``, settling on Pub/Sub.

Celery knows one thing to do with a message, to acknowledge it; here a failed run must *not* be
acknowledged, and a final one has to reach the dead-letter topic first. So each of Celery's
callbacks gets the settlement that came with the run (``delivery/carriers.py``), or asks the table
(``delivery/outcome.py``) for what no run decided, and :meth:`HandlerRequest._apply` does it, once,
with the event that monitors expect.

``on_success`` and ``execute_using_pool`` are not overridden: Celery replaces both in a subclass of
this class (``celery.worker.request.create_request_cls``). ``request_class.py`` derives from that.
"""

from __future__ import annotations

import logging
import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.utils.serialization import get_pickled_exception
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.encoding import safe_repr, safe_str

from convotic_celery.context.records import new_token
from convotic_celery.log import fold_traceback
from convotic_celery.log.clip import clip
from convotic_celery.runtime.delivery.attempts import RunName, describe_failure
from convotic_celery.runtime.delivery.attributes import Origin, dead_letter_attributes
from convotic_celery.runtime.delivery.carriers import carried, error_of
from convotic_celery.runtime.delivery.counters import Outcome, outcomes
from convotic_celery.runtime.delivery.observing import (
    MessageSettled,
    ObservedMessage,
    RunBegan,
    observers,
)
from convotic_celery.runtime.delivery.outcome import (
    HardLimit,
    Raised,
    Refused,
    Returned,
    Revoked,
    Stopped,
    WorkerLost,
    settle,
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
from convotic_celery.sdk.options import WorkerOptions
from convotic_pubsub import queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.runtime.delivery.attempts import End
    from convotic_celery.runtime.delivery.payload import MessageFacts
    from convotic_celery.runtime.execution.invoke import Execution
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["HandlerRequest", "SettledMessage"]

logger = logging.getLogger(__name__)

#: The table's row for a handler that returned, which no option changes: asked once, not a message.
_RETURNED = settle(Returned(), WorkerOptions())
assert isinstance(_RETURNED, Ack)
_SUCCEEDED = _RETURNED.outcome
_ACKNOWLEDGE = queue.Acknowledge()


class SettledMessage(Protocol):
    """What this needs of :class:`convotic_pubsub.kombu.message.Message`."""

    def started(self, hold_seconds: float) -> None:
        """Keep the lease at most so long from now."""

    def settle(self, settlement: queue.Settlement) -> None:
        """Settle it, if it is not settled yet."""


class HandlerRequest(Request):
    """One delivery of one message to one handler, on the worker's side.

    Its callbacks run on whatever thread the pool has; the message's methods are thread-safe and
    only the first settlement counts.
    """

    #: Celery's, missing in celery-types.
    _context: Any
    #: Until when the lease is kept, by the monotonic clock; unbounded before the run.
    _held_until = math.inf
    _is_terminated = False
    #: Its run is being ended, by a cold stop or because Celery lost its connection.
    is_cancelled = False
    _observed: ObservedMessage | None = None

    # -- what Celery and the pool call -----------------------------------------------------------

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note that the handler begins: from now on the lease is held for its ack deadline."""
        self.hold(self.run_limit)
        super().on_accepted(pid, time_accepted)
        if observers.began:
            observers.report(observers.began, RunBegan(self.observed, self.time_start or 0.0))

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
        """True if it runs although its lease has ended: plain code, which can't be stopped."""
        return not self.acknowledged and time.monotonic() > self._held_until

    def acknowledge(self) -> None:
        """Acknowledge: the handler returned. What :meth:`_apply` does, for nearly every message."""
        if not self.acknowledged:
            self.acknowledged = True
            self.message.settle(_ACKNOWLEDGE)
            outcomes.count(self.name, _SUCCEEDED)
            if observers.succeeded:
                event = MessageSettled(self.observed, _RETURNED, time.time(), self.time_start)
                observers.report(observers.succeeded, event)

    def reject(self, requeue: bool = False) -> None:
        """Dead-letter the message, or return it: Celery rejects a request that it can't run."""
        if requeue:
            self.return_unrun()
        else:
            self._apply(settle(Refused("rejected"), self._definition.options))

    def return_unrun(self) -> None:
        """Return the message unrun; this counts as no attempt."""
        state.task_ready(self)
        self._apply(settle(Stopped(), self._definition.options))

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """Let the lease lapse after the delay that the run chose; that is the redelivery."""
        self._end(exc_info)

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Settle a run that raised, was stopped, or took its process down.

        Args:
            exc_info: What it raised.
            send_failed_event: False keeps monitors out of it.
            return_ok: True if the tracer has recorded the failure; else it is not recorded yet.
        """
        self._end(exc_info, recorded=return_ok, announced=send_failed_event)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Settle a run that the pool gave up at its hard limit.

        Billiard calls ``on_failure`` first and then this; our pool calls only this.
        """
        if soft:
            super().on_timeout(soft, timeout)
        elif not self.acknowledged:
            try:
                raise TimeLimitExceeded(timeout)  # noqa: TRY301 - it is recorded with its traceback
            except TimeLimitExceeded:
                self._end(ExceptionInfo())

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Stop the run of a revoked task. The run's end may be noticed before Celery says why."""
        self._is_terminated = True
        super().terminate(pool, signal)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Stop the run; its end may be noticed before Celery says why. It is delivered again."""
        self.is_cancelled = True
        super().cancel(pool, signal, emit_retry)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002 - it is always safe
        """Return what ``inspect active`` shows; the data as (shortened) text, it is bytes."""
        shown = super().info(safe=True)
        return {**shown, "attempt": self._facts["attempt"]} if self._facts else shown

    # -- settling --------------------------------------------------------------------------------

    def _end(
        self, exc_info: ExceptionInfo, *, recorded: bool = False, announced: bool = True
    ) -> None:
        """Settle a run that did not return."""
        state.task_ready(self)
        if self.acknowledged:
            return
        try:
            settlement = carried(exc_info) or self._decide(error_of(exc_info))
            self._apply(settlement, exc_info, recorded=recorded, announced=announced)
        except Exception:
            logger.exception("%s[%s] could not be settled as it ended", self.name, self.id)
        if not self.acknowledged:  # never keep its slot: let Pub/Sub deliver it again
            self._apply(RetryRun(self._definition.options.ack_deadline))

    def _decide(self, error: BaseException) -> Settlement:
        """Ask the table about an end that no run of ours has decided."""
        options = self._definition.options
        if self._was_stopped_by_us(error):
            return settle(Revoked() if self._is_terminated else Stopped(), options)
        if self._facts is None:  # in Celery's own envelope
            return settle(Refused("invalid", error), options)
        if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            logger.error("%s[%s] took its process down: %r", self.name, self.id, error)
            return settle(WorkerLost(self._elapsed_seconds), options)
        if isinstance(error, TimeLimitExceeded):
            logger.error("Hard time limit exceeded for %s[%s]: %s", self.name, self.id, error)
            return settle(HardLimit(), options, attempt=self._facts["attempt"])
        raised = error if isinstance(error, Exception) else RuntimeError(safe_repr(error))
        event = Raised(raised, self._elapsed_seconds)
        return settle(event, options, attempt=self._facts["attempt"])

    def _apply(
        self,
        settlement: Settlement,
        exc_info: ExceptionInfo | None = None,
        *,
        recorded: bool = True,
        announced: bool = True,
    ) -> None:
        """Do what was decided, and report it; only the first settlement counts."""
        if self.acknowledged:
            return
        told = self._to_transport(settlement)
        self.acknowledged = True
        self._note(settlement)
        self._delivery.settle(told)
        match settlement:
            case Ack():
                self._report_ack(settlement)
            case RetryRun():
                self._report_retry("retried", exc_info)
            case Defer():
                self._report_retry("deferred", exc_info)
            case Fail():
                self._report_failure(exc_info, recorded=recorded, announced=announced)
            case ReturnUnrun():
                outcomes.count(self.name, "returned_unrun")
        if observers.settled:
            dead_letter = told.attributes if isinstance(told, queue.DeadLetter) else None
            self._report_to_observers(settlement, exc_info, dead_letter)

    def _to_transport(self, settlement: Settlement) -> queue.Settlement:
        match settlement:
            case Ack():
                return _ACKNOWLEDGE
            case RetryRun():
                return queue.Lapse(settlement.delay_seconds)
            case Defer():
                return queue.Defer(settlement.delay_seconds)
            case Fail():
                return queue.DeadLetter(
                    dead_letter_attributes(settlement, self._origin(settlement))
                )
            case ReturnUnrun():
                return queue.Return()

    def _note(self, settlement: Settlement) -> None:
        """Write to the store how the run ended, where the run itself could not."""
        attempts, facts = self._execution.attempts, self._facts
        if attempts is None or facts is None:
            return
        end: End
        match settlement:
            case RetryRun(recorded=False):
                end, last = settlement.counts_as, describe_failure(settlement)
            case Defer(recorded=False) | ReturnUnrun() if "run" in facts:
                end, last = "unrun", ""
            case _:
                return
        subscription, ttl = self._definition.subscription, self._definition.options.retention
        run = facts.get("run") or new_token()
        attempts.end_later(RunName(subscription, facts["pubsub_id"], run, ttl), end, last)

    # -- reporting -------------------------------------------------------------------------------

    @property
    def observed(self) -> ObservedMessage:
        """The message as observers know it."""
        if self._observed is None:
            facts = self._facts or unknown_facts(self.id)
            self._observed = ObservedMessage(self._definition, facts, self.id)
        return self._observed

    def _report_to_observers(
        self,
        settlement: Settlement,
        exc_info: ExceptionInfo | None = None,
        dead_letter: Mapping[str, str] | None = None,
    ) -> None:
        event = MessageSettled(self.observed, settlement, time.time(), self.time_start)
        if exc_info is not None:
            event.error, event.traceback = error_of(exc_info), safe_str(exc_info.traceback)
        event.dead_letter = dead_letter
        observers.report(observers.settled, event)

    def _report_ack(self, ack: Ack) -> None:
        """Monitors see a message that its handler declined as a success with that result."""
        outcomes.count(self.name, ack.outcome)
        if ack.outcome in {"succeeded", "revoked"}:  # Celery reports these
            return
        state.task_ready(self, successful=True)
        result = repr({"dropped": ack.reason})
        self.send_event("task-succeeded", result=result, runtime=self._elapsed_seconds)

    def _report_retry(self, outcome: Outcome, exc_info: ExceptionInfo | None) -> None:
        outcomes.count(self.name, outcome)
        if exc_info is not None:
            error = error_of(exc_info)
            self.send_event(
                "task-retried",
                exception=clip(safe_repr(getattr(error, "exc", None) or error)),
                traceback=clip(fold_traceback(safe_str(exc_info.traceback))),
            )

    def _report_failure(
        self, exc_info: ExceptionInfo | None, *, recorded: bool, announced: bool
    ) -> None:
        outcomes.count(self.name, "dead_lettered")
        if exc_info is None:
            return
        error = error_of(exc_info)
        if not recorded:
            self._record_failure(exc_info, error)
        if announced:
            self.send_event(
                "task-failed",
                exception=clip(safe_repr(get_pickled_exception(error))),
                traceback=clip(fold_traceback(safe_str(exc_info.traceback))),
            )

    def _record_failure(self, exc_info: ExceptionInfo, error: BaseException) -> None:
        """Do what Celery's tracer does for a failure, for one that the tracer did not see."""
        logger.error("%s[%s] failed: %s", self.name, self.id, safe_repr(error))
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

    # -- state -----------------------------------------------------------------------------------

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Acknowledge a revoked or expired message, and count it as that."""
        self._apply(settle(Revoked(), self._definition.options))
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]  # untyped

    def _was_stopped_by_us(self, error: BaseException) -> bool:
        """Say whether a shutdown stopped the run: then it has not failed.

        A revoked one was acknowledged when it was revoked.
        """
        if isinstance(error, Terminated):
            return True
        cancelled = self.is_cancelled or bool(state.should_terminate)
        return cancelled and isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt)

    @property
    def _delivery(self) -> SettledMessage:
        message: SettledMessage = self.message
        return message

    @property
    def _execution(self) -> Execution:
        execution: Execution = self.task.execution  # type: ignore[attr-defined]  # HandlerTask's
        return execution

    @property
    def _definition(self) -> HandlerDefinition:
        definition: HandlerDefinition = self.task.execution.definition  # type: ignore[attr-defined]  # HandlerTask's
        return definition

    @property
    def _facts(self) -> MessageFacts | None:
        """What Pub/Sub said; None for a message in Celery's own envelope, which can't be run."""
        facts: MessageFacts | None = self.request_dict.get("convotic")
        return facts

    def _origin(self, fail: Fail) -> Origin:
        facts, definition = self._facts, self._definition
        published = facts["published_at"] if facts else datetime.now(UTC)
        return Origin(
            message_id=fail.message_id or (facts["message_id"] if facts else self.id),
            subscription=definition.subscription,
            topic=definition.topic,
            published_at=published,
            replay_count=fail.replay_count,
        )

    @property
    def _elapsed_seconds(self) -> float:
        """Time since the run began; 0 before."""
        return 0.0 if self.time_start is None else max(0.0, time.time() - self.time_start)
