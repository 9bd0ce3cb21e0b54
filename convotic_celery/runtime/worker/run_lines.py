"""The lines of a worker about runs: one for each message that it lets go.

They are the logger's ``convotic.runs``; a success is INFO, a retry WARNING, a dead letter ERROR.
"""

from __future__ import annotations

import logging
import time

from convotic_celery.log import (
    FIELDS_ATTRIBUTE,
    LINE_ATTRIBUTE,
    Line,
    describe_error,
    fold_traceback,
)
from convotic_celery.runtime.delivery.observing import MessageSettled, RunObserver
from convotic_celery.runtime.delivery.settlement import (
    Ack,
    Defer,
    Fail,
    RetryRun,
    ReturnUnrun,
)

__all__ = ["RunLines"]

logger = logging.getLogger("convotic.runs")

_ACKNOWLEDGED = {
    "dropped": "dropped",
    "duplicate": "skipped",
    "expired": "acknowledged without a run: older than its handler's max_message_age",
    "other_target": "acknowledged without a run: it is meant for another handler",
    "revoked": "acknowledged without a run: revoked",
}
_MAX_ERROR = 300


class RunLines(RunObserver):
    """Logs what becomes of each message. Thread-safe.

    Args:
        successes: Log those too.
        whole_tracebacks: Fold no frames.
    """

    def __init__(self, *, successes: bool = True, whole_tracebacks: bool = False) -> None:
        self.hears_successes = successes
        self._whole = whole_tracebacks

    def message_settled(self, event: MessageSettled) -> None:
        """Log a line about a message."""
        match event.settlement:
            case Ack(outcome="succeeded"):
                took = _duration(event.duration_seconds)
                _log(event, logging.INFO, "✓", f"succeeded in {took}", took)
            case Ack(outcome=outcome, reason=reason):
                text = ": ".join(filter(None, (_ACKNOWLEDGED.get(outcome, outcome), reason)))
                _log(event, logging.INFO, "-", text)
            case RetryRun():
                self._log_retry(event, event.settlement)
            case Defer(reason=reason):
                _log(event, logging.INFO, "~", f"not run, {reason}; {_next(event)}")
            case Fail():
                self._log_dead_letter(event, event.settlement)
            case ReturnUnrun():
                _log(event, logging.INFO, "-", "returned unrun: this worker stops")

    def _log_retry(self, event: MessageSettled, retry: RetryRun) -> None:
        if retry.counts_as == "loss":
            _log(event, logging.WARNING, "↻", f"its process died; {_next(event)}")
            return
        runs = event.message.definition.options.max_runs
        took = _duration(event.duration_seconds)
        error = _describe(retry.error_type, retry.error_message)
        text = f"run {event.attempt} of {runs} failed after {took}, {_next(event)}: {error}"
        # Once: the next runs fail in the same place, most likely.
        traceback = self._traceback(event) if event.attempt == 1 else ""
        _log(event, logging.WARNING, "↻", text, traceback=traceback)

    def _log_dead_letter(self, event: MessageSettled, fail: Fail) -> None:
        runs = f"after {fail.attempts} runs" if fail.attempts > 1 else ""
        error = _describe(fail.error_type, fail.error_message)
        what = " ".join(filter(None, ("dead letter", runs)))
        text = f"{what}, {fail.reason}" + (f": {error}" if error else "")
        text += f" (convotic dlq show {event.message.message_id})"
        traceback = self._traceback(event) if fail.attempts == 1 else ""
        _log(event, logging.ERROR, "✗", text, traceback=traceback)

    def _traceback(self, event: MessageSettled) -> str:
        error = getattr(event.error, "exc", None) or event.error
        if isinstance(error, BaseException) and error.__traceback__ is not None:
            try:
                return describe_error(error, whole=self._whole)
            except Exception:  # noqa: BLE001 - an error whose text raises
                return ""
        return event.traceback if self._whole else fold_traceback(event.traceback)


def _log(
    event: MessageSettled,
    level: int,
    sign: str,
    text: str,
    short: str = "",
    *,
    traceback: str = "",
) -> None:
    message = event.message
    fields = {
        "handler": message.handler,
        "message_id": message.message_id,
        "attempt": max(1, event.attempt),
    }
    if parent := message.facts["trace"].get("traceparent"):
        fields["traceparent"] = parent
    if not logger.isEnabledFor(level):
        return
    # Made here, not by logger.log(), which would look for its caller: a third of the cost.
    arguments = (message.handler, message.message_id, _readable(text))
    record = logging.LogRecord(logger.name, level, __file__, 0, "%s %s %s", arguments, None)
    record.__dict__[FIELDS_ATTRIBUTE] = fields
    record.__dict__[LINE_ATTRIBUTE] = Line(sign, short or arguments[2], _readable(traceback))
    logger.handle(record)


def _readable(text: str) -> str:
    """Return the text with what can't be encoded, lone surrogates of an error's, spelt out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _describe(error_type: str, error_message: str) -> str:
    """Return an error as one line."""
    kind = error_type.rpartition(".")[2]
    return " ".join(": ".join(filter(None, (kind, error_message))).split())[:_MAX_ERROR]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "no time"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _next(event: MessageSettled) -> str:
    if event.next_at is None or event.next_at - event.at < 1:
        return "again at once"
    at = time.strftime("%H:%M:%S", time.localtime(event.next_at))
    return f"again in {event.next_at - event.at:.0f} s at {at}"
