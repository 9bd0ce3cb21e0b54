"""How log records look and where they are written; the logging itself is the standard library's.

- ``fields``: what belongs to a record beside its text.
- ``tracebacks``: an error as its author wants to read it.
- ``text``: lines for people. ``cloud``: JSON lines as Cloud Logging reads them.
- ``clip``: bounds what one record writes.
- ``stream``: writes without ever blocking.
- ``setup``: which of these, by the settings.

A worker's handlers are Celery's and get our formatters from ``runtime/worker/logs.py``; programs
without Celery call :func:`configure_logging`. structlog's global configuration is left alone.
"""

from convotic_celery.log.cloud import CloudFormatter
from convotic_celery.log.fields import (
    FIELDS_ATTRIBUTE,
    LINE_ATTRIBUTE,
    Line,
    log_fields,
    use_fields,
)
from convotic_celery.log.setup import build_formatter, configure_logging, is_for_people
from convotic_celery.log.stream import UnblockedHandler
from convotic_celery.log.text import FieldsFormatter, TextFormatter, escape_controls
from convotic_celery.log.tracebacks import describe_error, fold_traceback

__all__ = [
    "FIELDS_ATTRIBUTE",
    "LINE_ATTRIBUTE",
    "CloudFormatter",
    "FieldsFormatter",
    "Line",
    "TextFormatter",
    "UnblockedHandler",
    "build_formatter",
    "configure_logging",
    "describe_error",
    "escape_controls",
    "fold_traceback",
    "is_for_people",
    "log_fields",
    "use_fields",
]
