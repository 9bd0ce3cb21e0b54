"""OpenTelemetry: one trace from a publish over the runs that follow to what they publish.

``CONVOTIC_TRACING=true`` puts :class:`TraceRuns` and :class:`TraceRoutes` around handlers and
routes, and :class:`PublishTracing` before the publisher. Spans and metrics are named as the
conventions for messaging say, https://opentelemetry.io/docs/specs/semconv/messaging/; the table is
in ``docs/tracing.md``. An application's own TracerProvider is used; without one, spans go to where
``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import signals
from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from convotic_celery.errors import ConfigurationError
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware
from convotic_pubsub.limits import MAX_ATTRIBUTES

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram

    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.publishing import OutgoingMessage
    from convotic_pubsub.outgoing import Answer

__all__ = [
    "PublishTracing",
    "TraceRoutes",
    "TraceRuns",
    "current_trace",
    "set_up_tracing",
    "trace_tasks",
]

_NAME = "convotic_celery"
#: What Google's clients read, beside W3C's name.
_GOOGLES = "googclient_"

tracer = trace.get_tracer(_NAME)
_meter = metrics.get_meter(_NAME)
_sent = _meter.create_counter("messaging.client.sent.messages", "{message}")
_consumed = _meter.create_counter("messaging.client.consumed.messages", "{message}")
_operation_seconds = _meter.create_histogram("messaging.client.operation.duration", "s")
_process_seconds = _meter.create_histogram("messaging.process.duration", "s")


@dataclass(slots=True)
class _Open:
    """The span of what runs here."""

    span: Span
    token: Token[otel_context.Context]
    attributes: dict[str, Any]
    #: Records how long it took; None for what has no such metric.
    seconds: Histogram | None
    #: What this runs inside of: the task that has called another one eagerly, say.
    outer: _Open | None
    began: float = field(default_factory=time.monotonic)
    error: BaseException | None = None
    #: Removes what ends the span when the asyncio task ends.
    unwatch: Callable[[], object] = lambda: None

    def watch(self) -> None:
        """End the span with the asyncio task at the latest: no hook hears of one that is stopped.

        The pool stops a run (a revoke, a second SIGTERM), a web server a call whose client left.
        """
        with contextlib.suppress(RuntimeError):  # no event loop: a thread, which nothing stops
            if (task := asyncio.current_task()) is not None:
                task.add_done_callback(self._stopped)
                self.unwatch = partial(task.remove_done_callback, self._stopped)

    def _stopped(self, _task: object) -> None:
        self.error = asyncio.CancelledError("stopped")
        self.end()

    def end(self) -> None:
        """End the span, with the error."""
        self.unwatch()
        if self.error is not None:
            with contextlib.suppress(Exception):  # it may raise when it is asked for its text
                self.span.record_exception(self.error)
            self.span.set_status(Status(StatusCode.ERROR, type(self.error).__name__))
            self.span.set_attribute("error.type", type(self.error).__qualname__)
            self.attributes["error.type"] = type(self.error).__qualname__
        if self.seconds is not None:
            self.seconds.record(time.monotonic() - self.began, self.attributes)
        self.span.end()


#: Of this task or thread.
_open: ContextVar[_Open | None] = ContextVar("convotic-span", default=None)


def _begin(
    name: str,
    kind: SpanKind,
    carrier: Mapping[str, str],
    attributes: dict[str, Any],
    *,
    seconds: Histogram | None = None,
    labels: dict[str, Any] | None = None,
) -> None:
    """Begin a span as a child of what the carrier names, and make it the current one."""
    parent = extract(carrier)
    origin = trace.get_current_span(parent).get_span_context()
    links = [Link(origin)] if origin.is_valid else []
    span = tracer.start_span(name, parent, kind, attributes, links)
    token = otel_context.attach(trace.set_span_in_context(span, parent))
    opened = _Open(span, token, labels or {}, seconds, _open.get())
    opened.watch()
    _open.set(opened)


def _end(error: BaseException | None) -> None:
    """End the span that was begun here, and give the context back."""
    opened = _open.get()
    if opened is not None:
        _open.set(opened.outer)
        if opened.error is None:
            opened.error = error
        opened.end()
        otel_context.detach(opened.token)


def _pass_on(delivery: Delivery) -> None:
    """Have what is published later, with a delay, follow the span that begins here."""
    carrier = delivery.trace
    if isinstance(carrier, dict):
        inject(carrier)


def current_trace() -> dict[str, str]:
    """Return ``traceparent`` and ``tracestate`` of the span that is current here."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier


class TraceRuns(WorkerMiddleware):
    """A span ``process TOPIC`` around each run: the child of its publish, with a link to that."""

    def before(self, message: Any, ctx: Any) -> None:
        """Begin it."""
        delivery: Delivery = ctx._delivery
        labels = {
            "messaging.system": "gcp_pubsub",
            "messaging.operation.name": "process",
            "messaging.destination.name": delivery.topic,
            "messaging.destination.subscription.name": delivery.handler,
        }
        attributes = {
            **labels,
            "messaging.operation.type": "process",
            "messaging.message.id": delivery.message_id,
            "messaging.gcp_pubsub.message.delivery_attempt": delivery.attempt,
            "convotic.replay": delivery.is_replay,
        }
        if message.ordering_key:
            attributes["messaging.gcp_pubsub.message.ordering_key"] = message.ordering_key
        _consumed.add(1, labels)
        _begin(
            f"process {delivery.topic}",
            SpanKind.CONSUMER,
            delivery.trace,
            attributes,
            seconds=_process_seconds,
            labels=labels,
        )
        _pass_on(delivery)

    def after(self, message: Any, ctx: Any) -> None:
        """End it."""
        del message, ctx
        _end(None)

    def on_error(self, message: Any, ctx: Any, error: Exception) -> None:
        """End it, with what the run raised."""
        del message, ctx
        _end(error)


class TraceRoutes(RouteMiddleware):
    """A span ``POST /orders`` around each call of a route."""

    def before(self, request: Any, ctx: Any) -> None:
        """Begin it."""
        del request
        delivery: Delivery = ctx._delivery
        method, _, path = delivery.handler.partition(" ")
        attributes = {"http.request.method": method, "http.route": path}
        _begin(delivery.handler, SpanKind.SERVER, delivery.trace, attributes)
        _pass_on(delivery)

    def after(self, request: Any, ctx: Any, response: Any) -> None:
        """End it."""
        del request, ctx, response
        _end(None)

    def on_error(self, request: Any, ctx: Any, error: Exception) -> None:
        """End it, with what the route raised."""
        del request, ctx
        _end(error)


class PublishTracing:
    """Makes a span ``send TOPIC`` for each publish, and writes it into the message.

    Its parent is the span that is current, or else the one that the message names already: that of
    who published it with a delay. Thread-safe.
    """

    def __call__(
        self, message: OutgoingMessage
    ) -> tuple[OutgoingMessage, Callable[[Answer], None]]:
        """Return the message to send, and what is to be called with its confirmation."""
        parent = None
        if not trace.get_current_span().get_span_context().is_valid:
            parent = extract(message.attributes)
        labels: dict[str, Any] = {
            "messaging.system": "gcp_pubsub",
            "messaging.operation.name": "send",
            "messaging.destination.name": message.topic,
        }
        attributes = {
            **labels,
            "messaging.operation.type": "send",
            "messaging.message.body.size": len(message.data),
        }
        if message.ordering_key:
            attributes["messaging.gcp_pubsub.message.ordering_key"] = message.ordering_key
        span = tracer.start_span(f"send {message.topic}", parent, SpanKind.PRODUCER, attributes)
        began = time.monotonic()

        def confirmed(future: Answer) -> None:
            error = future.exception()
            if error is None:
                span.set_attribute("messaging.message.id", future.result())
                _sent.add(1, labels)
            else:
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                labels["error.type"] = type(error).__qualname__
            _operation_seconds.record(time.monotonic() - began, labels)
            span.end()

        return _write(message, span), confirmed


def _write(message: OutgoingMessage, span: Span) -> OutgoingMessage:
    """Return the message with the span's context, under W3C's name and that of Google's clients."""
    carrier: dict[str, str] = {}
    inject(carrier, trace.set_span_in_context(span))
    if not carrier:
        return message  # it is not recorded
    attributes = dict(message.attributes)
    for name, value in (*carrier.items(), *((_GOOGLES + k, v) for k, v in carrier.items())):
        if name in attributes or len(attributes) < MAX_ATTRIBUTES:
            attributes[name] = value
    return replace(message, attributes=attributes)


# -- ordinary tasks, and with them the steps of workflows ------------------------------------------


def trace_tasks() -> None:
    """Have Celery's own tasks carry the trace on: a span each, a child of the sender's."""
    signals.before_task_publish.connect(_on_publish, weak=False, dispatch_uid=_NAME)
    signals.task_prerun.connect(_on_prerun, weak=False, dispatch_uid=_NAME)
    signals.task_postrun.connect(_on_postrun, weak=False, dispatch_uid=_NAME)
    signals.task_failure.connect(_on_failure, weak=False, dispatch_uid=_NAME)


def _on_publish(headers: Any = None, **_: Any) -> None:
    if isinstance(headers, dict):
        inject(headers)


def _on_prerun(task: Any = None, task_id: str = "", **_: Any) -> None:
    if isinstance(task, HandlerTask):
        return
    carrier = {
        name: value
        for name in ("traceparent", "tracestate")
        if isinstance(value := task.request.get(name), str)
    }
    attributes = {
        "messaging.system": "gcp_pubsub",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": task_id,
        "celery.task_name": task.name,
    }
    _begin(f"process {task.name}", SpanKind.CONSUMER, carrier, attributes)


def _on_failure(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
    opened = _open.get()
    if opened is not None and not isinstance(sender, HandlerTask):
        opened.error = exception  # the span ends with the run


def _on_postrun(task: Any = None, **_: Any) -> None:
    if not isinstance(task, HandlerTask):
        _end(None)


# -- where spans go --------------------------------------------------------------------------------


def set_up_tracing() -> None:
    """Send spans by OTLP, unless the application has a TracerProvider of its own already.

    Raises:
        ConfigurationError: The exporter is not installed.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError:
        raise ConfigurationError(
            "CONVOTIC_TRACING: no TracerProvider is set, and the exporter is not installed: "
            "pip install 'convotic-celery[otel]', or set a TracerProvider in a module."
        ) from None
    resource = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "convotic"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
