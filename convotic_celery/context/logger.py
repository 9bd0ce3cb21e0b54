"""``ctx.logger``: a structlog logger that ends in the standard library's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from convotic_celery.log import FIELDS_ATTRIBUTE

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["HandlerLogger", "build_logger", "build_run_logger"]

#: The standard library's logger that handlers log to.
LOGGER_NAME = "convotic.handler"

#: The level of each method.
_LEVELS: Final = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}
_LEVELS["exception"] = logging.ERROR


class HandlerLogger(structlog.stdlib.BoundLogger):
    """Logs a sentence and fields: ``logger.info("Processing order", order_id=order.id)``.

    The fields may also be one mapping: ``logger.info("Processing order", {"order_id": order.id})``.
    ``logger.bind(order_id=...)`` returns a logger that adds them to everything. Never blocks longer
    than the log handlers do; thread-safe.
    """

    #: Gives the fields of a run's logger.
    _log_fields: Callable[[], dict[str, Any]]

    if not TYPE_CHECKING:  # otherwise a misspelt method would be no error to type checkers

        def __getattr__(self, name: str) -> Any:
            if name != "_context":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._context = self._log_fields()
            return self._context

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: Any, **event_kw: Any
    ) -> Any:
        logger: logging.Logger = self._logger
        # First of all: most of a busy worker's lines are below its level. Not isEnabledFor(), which
        # on Python 3.14 says no while a record of this thread is being handled.
        if logger.disabled or _LEVELS[method_name] < logger.getEffectiveLevel():
            return None
        if len(event_args) == 1 and isinstance(event_args[0], Mapping):
            fields = {str(name): value for name, value in event_args[0].items()}
            event_args, event_kw = (), fields | event_kw
        return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)


def build_logger(**fields: Any) -> HandlerLogger:
    """Return a logger that adds ``fields`` to everything it logs."""
    # What structlog.wrap_logger(...).bind() makes, without its lazy proxy.
    return HandlerLogger(_LOGGER, _PROCESSORS, fields)


def build_run_logger(log_fields: Callable[[], dict[str, Any]]) -> HandlerLogger:
    """Return a logger that adds what ``log_fields`` returns, asked for with the first line.

    Nearly every run asks for its logger, and most lines of a busy worker are below its level.
    """
    logger = HandlerLogger.__new__(HandlerLogger)  # without a context: __getattr__ makes it
    logger._logger, logger._processors, logger._log_fields = _LOGGER, _PROCESSORS, log_fields
    return logger


def _to_standard_record(
    _logger: WrappedLogger, _method: str, event: EventDict
) -> Mapping[str, Any]:
    """Return the arguments of the standard logger's method: the sentence, and fields as extra."""
    arguments: dict[str, Any] = {"msg": event.pop("event", "")}
    for name in ("exc_info", "stack_info", "stacklevel"):
        if name in event:
            arguments[name] = event.pop(name)
    arguments["extra"] = {FIELDS_ATTRIBUTE: event}
    return arguments


_LOGGER: Final = logging.getLogger(LOGGER_NAME)
_PROCESSORS: Final = (
    structlog.stdlib.PositionalArgumentsFormatter(),
    _to_standard_record,
)
