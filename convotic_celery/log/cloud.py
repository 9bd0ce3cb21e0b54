"""JSON lines in the form that Cloud Logging reads from a container's output.

https://cloud.google.com/logging/docs/structured-logging::

    {"severity": "INFO", "message": "Processing order", "time": "2026-11-23T21:00:00.123456Z",
     "logger": "convotic.handler", "order_id": 1, "topic": "custom.orders.new", "attempt": 1,
     "logging.googleapis.com/labels": {"handler": "custom.orders.new.shop", "message_id": "11"}}

Error Reporting reads ``stack_trace``.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from convotic_celery.log.clip import clip
from convotic_celery.log.fields import LINE_ATTRIBUTE, Line, fields_of
from convotic_celery.log.tracebacks import describe_error

__all__ = ["CloudFormatter"]

_LABELS = "logging.googleapis.com/labels"
_TRACE = "logging.googleapis.com/trace"
_SPAN = "logging.googleapis.com/spanId"
_SAMPLED = "logging.googleapis.com/trace_sampled"

#: Fields that are labels: what log entries are searched and counted by.
_LABEL_FIELDS = ("handler", "message_id", "route", "request_id", "module")
#: The line's own: a caller's field of such a name gets an underscore.
_OWN = frozenset({"severity", "message", "time", "logger", "stack_trace"})

_encode = json.JSONEncoder(default=str, ensure_ascii=False, separators=(", ", ": ")).encode


class CloudFormatter(logging.Formatter):
    """One JSON object a record.

    Args:
        project: The Google Cloud project, for links to traces; "": the trace's id alone.
        process: What this process is called; "": nothing.
        whole_tracebacks: Fold no frames.
    """

    def __init__(
        self, *, project: str = "", process: str = "", whole_tracebacks: bool = False
    ) -> None:
        super().__init__()
        self._trace_prefix = f"projects/{project}/traces/" if project else ""
        self._labels = {"worker": process} if process else {}
        self._whole = whole_tracebacks
        self._second = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON object."""
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": clip(record.getMessage()),
            "time": self._clock(record.created),
            "logger": record.name,
        }
        fields = fields_of(record)
        labels = dict(self._labels)
        for name in _LABEL_FIELDS:
            if name in fields:
                labels[name] = str(fields.pop(name))
        self._add_trace(entry, fields)
        for name, value in fields.items():
            entry[f"{name}_" if name in _OWN else name] = value
        if labels:
            entry[_LABELS] = labels
        line: Line | None = getattr(record, LINE_ATTRIBUTE, None)
        if line is not None and line.traceback:
            entry["stack_trace"] = clip(line.traceback)
        elif record.exc_info and record.exc_info[1]:
            entry["stack_trace"] = clip(describe_error(record.exc_info[1], whole=self._whole))
        try:
            return _encode(entry)
        except (TypeError, ValueError):  # keys of a mapping that JSON has no form for, or a circle
            return _encode({name: str(value) for name, value in entry.items()})

    def _clock(self, created: float) -> str:
        """Return the time as RFC 3339 has it; the seconds are written once each."""
        second = int(created)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{int((created - second) * 1e6):06d}Z"

    def _add_trace(self, entry: dict[str, Any], fields: dict[str, Any]) -> None:
        """Add the trace that ``traceparent`` (W3C: version-trace-span-flags) names."""
        parts = str(fields.pop("traceparent", "")).split("-")
        if len(parts) == 4:  # noqa: PLR2004 - as said above
            entry[_TRACE] = f"{self._trace_prefix}{parts[1]}"
            entry[_SPAN] = parts[2]
            entry[_SAMPLED] = parts[3].endswith("1")
