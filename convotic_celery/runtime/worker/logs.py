"""How a worker's lines look: text, JSON, or Celery's own, as CONVOTIC_LOG_FORMAT says."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from celery.app.log import Logging
from celery.exceptions import CPendingDeprecationWarning

from convotic_celery.log import FieldsFormatter, UnblockedHandler, build_formatter, is_for_people

if TYPE_CHECKING:
    from collections.abc import Container

    from convotic_celery.settings import Settings

__all__ = ["WorkerLogging"]

#: What Celery says at INFO about itself, at each start; shown with DEBUG.
_CHATTER = frozenset(
    {
        "celery.worker.consumer.connection",
        "celery.worker.consumer.gossip",
        "celery.worker.consumer.mingle",
    }
)
#: Loggers that repeat what our lines about runs say (``run_lines.py``).
_RUNS = frozenset(
    {"celery.app.trace", "celery.worker.strategy", "convotic_pubsub.consume.dead_letters"}
)


class WorkerLogging(Logging):
    """Sets up the handlers of a worker as Celery does, with our formatters.

    Handlers that the application has set up itself are left alone.
    """

    #: Whether handlers' runs are logged by our lines, not by Celery's.
    has_run_lines = False
    _process = ""
    _level = logging.INFO

    def setup(self, loglevel: Any = None, *args: Any, **options: Any) -> Any:
        """Set up logging as Celery does, without one of the warnings that it shows."""
        self._level = logging.getLevelName(loglevel) if isinstance(loglevel, str) else loglevel or 0
        self._process = _name_process(options.get("hostname"))
        handled = super().setup(loglevel, *args, **options)
        # Of each workflow step that is a group. It is about Celery's plans for error callbacks of
        # chords; ours does the same whichever way it is called.
        warnings.filterwarnings(
            "ignore", "task_allow_error_cb_on_chord_header", CPendingDeprecationWarning
        )
        self.has_run_lines = self._settings.log_format != "celery"
        if self.has_run_lines and self._level > logging.DEBUG:
            # Of prefork's children, before they set up logging as this does.
            os.environ["_MP_FORK_LOGLEVEL_"] = str(max(logging.WARNING, self._level))
        return handled

    def setup_handlers(
        self, logger: logging.Logger, logfile: Any, *args: Any, **options: Any
    ) -> logging.Logger:
        """Give the logger a handler if it has none."""
        if self._is_configured(logger):  # type: ignore[attr-defined]  # not in celery-types
            return logger
        colorize = args[1] if len(args) > 1 else options.get("colorize")
        super().setup_handlers(logger, logfile, *args, **options)
        for handler in logger.handlers:
            if handler.formatter is None:
                continue
            if self._settings.log_format == "celery":
                handler.setFormatter(FieldsFormatter(handler.formatter))
                continue
            stream: TextIO | None = getattr(handler, "stream", None)
            formatter = build_formatter(
                self._settings,
                stream,
                colours=None if colorize is not False else False,
                process=self._process,
                level=self._level,
            )
            unblocked = _unblocked(handler)
            unblocked.setFormatter(formatter)
            if self._level > logging.DEBUG:
                definitions = self.app.definitions  # type: ignore[attr-defined]  # ConvoticApp's
                unblocked.addFilter(_Quiet(frozenset(d.queue for d in definitions)))
            logger.handlers[logger.handlers.index(handler)] = unblocked
        return logger

    @property
    def is_for_people(self) -> bool:
        """Whether the lines are text."""
        return is_for_people(self._settings, sys.__stderr__)

    @property
    def _settings(self) -> Settings:
        settings: Settings = self.app.settings  # type: ignore[attr-defined]  # ConvoticApp's
        return settings


class _Quiet(logging.Filter):
    """Drops what Celery and the transport say about handlers' runs, and Celery's chatter.

    On our handlers, not on loggers: those are the application's too.
    """

    def __init__(self, handlers: Container[str]) -> None:
        super().__init__()
        self._handlers = handlers

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line to drop."""
        if record.name in _CHATTER:
            return record.levelno > logging.INFO
        if record.name not in _RUNS:
            return True
        args = record.args
        if isinstance(args, dict):
            return args.get("name") not in self._handlers
        is_dead_letter = getattr(record, "action", "") == "dead_lettered"
        return not (is_dead_letter and getattr(record, "queue", "") in self._handlers)


def _unblocked(handler: logging.Handler) -> logging.Handler:
    """Return a handler that writes the same stream and never blocks; a file's stays."""
    if type(handler) is not logging.StreamHandler:
        return handler
    try:
        return UnblockedHandler(handler.stream)
    except (OSError, ValueError):  # a stream in memory
        return handler


def _name_process(hostname: object) -> str:
    """Return what stands on each line: a worker's name before the @, where it has one of its own.

    `convotic worker --processes` gives each a number; alone it is Celery's default.
    """
    name = str(hostname or "").partition("@")[0]
    return "" if name == "celery" else name
