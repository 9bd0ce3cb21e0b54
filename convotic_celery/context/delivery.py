"""Which message is being handled: :class:`Delivery`, what the runtime tells the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Delivery", "RouteCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One run of a handler on one message."""

    #: The handler's queue name.
    handler: str
    topic: str
    message_id: str
    #: The handler's module, whose storage the context gives.
    module: str = ""
    #: 1 on the first run.
    attempt: int = 1
    #: True if the message was sent again from the dead-letter topic.
    is_replay: bool = False
    #: ``traceparent`` and ``tracestate``, passed on to what the handler publishes.
    trace: Mapping[str, str] = field(default_factory=dict)

    def log_fields(self) -> dict[str, Any]:
        """Return what every log record about this run says."""
        return {
            "handler": self.handler,
            "topic": self.topic,
            "message_id": self.message_id,
            "attempt": self.attempt,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCall(Delivery):
    """One call of a route: ``handler`` is ``POST /orders``, ``message_id`` the request's id."""

    topic: str = ""

    def log_fields(self) -> dict[str, Any]:
        """Return what every log record about this call says."""
        return {"route": self.handler, "module": self.module, "request_id": self.message_id}
