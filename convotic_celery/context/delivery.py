"""Which message is being handled: :class:`Delivery`, passed from runtime to context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["BatchDelivery", "Delivery", "RouteCall", "RunClock"]


class RunClock(Protocol):
    """How long a run may go on; provided by the runtime."""

    fencing_token: int | None

    @property
    def time_left(self) -> float:
        """Seconds until the run is stopped."""
        ...

    def extend(self, seconds: float) -> None:
        """Let it go on for at least this long from now."""
        ...


@dataclass(slots=True, kw_only=True)  # not frozen: one is made for each message
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
    #: True if the message was replayed from the dead-letter topic.
    is_replay: bool = False
    #: ``traceparent`` and ``tracestate``, passed on to what the handler publishes.
    trace: Mapping[str, str] = field(default_factory=dict)
    #: None if there is no deadline: for a route's call, or a handler that a test calls.
    control: RunClock | None = None
    #: What the module's lifespan yields.
    resource: object = None

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of every log record about this run."""
        fields = {
            "handler": self.handler,
            "topic": self.topic,
            "message_id": self.message_id,
            "attempt": self.attempt,
        }
        if parent := self.trace.get("traceparent"):
            fields["traceparent"] = parent
        return fields


@dataclass(slots=True, kw_only=True)
class BatchDelivery(Delivery):
    """One call of a handler with many messages; ``message_id`` is that of the first."""

    size: int

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of every log record about this call."""
        return {"handler": self.handler, "topic": self.topic, "batch_size": self.size}


@dataclass(slots=True, kw_only=True)
class RouteCall(Delivery):
    """One call of a route: ``handler`` is ``POST /orders``, ``message_id`` the request's id."""

    topic: str = ""

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of every log record about this call."""
        return {"route": self.handler, "module": self.module, "request_id": self.message_id}
