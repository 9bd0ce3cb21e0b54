"""``ctx.logger``: a structlog logger that ends in the standard library's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from convotic_celery.log import FIELDS_ATTRIBUTE

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["HandlerLogger", "build_logger"]

#: The standard library's logger that handlers log to.
LOGGER_NAME = "convotic.handler"


class HandlerLogger(structlog.stdlib.BoundLogger):
    """Logs a sentence and fields: ``logger.info("Processing order", order_id=order.id)``.

    The fields may also be one mapping: ``logger.info("Processing order", {"order_id": order.id})``.
    ``logger.bind(order_id=...)`` returns a logger that adds them to everything. Never blocks longer
    than the log handlers do; thread-safe.
    """

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: Any, **event_kw: Any
    ) -> Any:
        if len(event_args) == 1 and isinstance(event_args[0], Mapping):
            fields = {str(name): value for name, value in event_args[0].items()}
            event_args, event_kw = (), fields | event_kw
        return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)


def build_logger(**fields: Any) -> HandlerLogger:
    """Return a logger that adds ``fields`` to everything it logs."""
    # What structlog.wrap_logger(...).bind() makes, without its lazy proxy: this runs per message.
    return HandlerLogger(logging.getLogger(LOGGER_NAME), _PROCESSORS, fields)


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


_PROCESSORS: Final = (
    structlog.stdlib.filter_by_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    _to_standard_record,
)
