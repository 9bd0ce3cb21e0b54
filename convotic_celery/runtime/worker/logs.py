"""How a worker's lines look: Celery's own, or as CONVOTIC_LOG_FORMAT says; with the fields."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from celery.app.log import Logging
from celery.exceptions import CPendingDeprecationWarning

from convotic_celery.log import FieldsFormatter, format_handlers

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["WorkerLogging"]


class WorkerLogging(Logging):
    """Sets up the handlers of a worker as Celery does, and shows what ``ctx.logger`` was given.

    With the setting ``auto`` the lines are Celery's. Handlers that the application has set up
    itself are left alone.
    """

    def setup(self, *args: Any, **options: Any) -> Any:
        """Set up logging as Celery does, without one of the warnings that it shows."""
        handled = super().setup(*args, **options)
        # Of each workflow step that is a group. It is about Celery's plans for error callbacks of
        # chords; ours does the same whichever way it is called.
        warnings.filterwarnings(
            "ignore", "task_allow_error_cb_on_chord_header", CPendingDeprecationWarning
        )
        return handled

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Give the logger a handler if it has none."""
        if self._is_configured(logger):  # type: ignore[attr-defined]  # not in celery-types
            return logger
        super().setup_handlers(logger, *args, **options)
        settings: Settings = self.app.settings  # type: ignore[attr-defined]  # ConvoticApp's
        if settings.log_format != "auto":
            format_handlers(logger, settings)
            return logger
        for handler in logger.handlers:
            if handler.formatter is not None:
                handler.setFormatter(FieldsFormatter(handler.formatter))
        return logger
