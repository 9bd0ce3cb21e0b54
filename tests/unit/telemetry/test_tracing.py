"""What tracing costs where it is off, and what it says where it can't be set up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import ProxyTracerProvider

from convotic_celery.errors import ConfigurationError
from convotic_celery.telemetry import tracing
from convotic_celery.telemetry.tracing import (
    PublishTracing,
    TraceRuns,
    set_up_tracing,
    trace_tasks,
)
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.waiting import PATIENCE


def test_nothing_is_loaded_where_tracing_is_off() -> None:
    """An app without CONVOTIC_TRACING imports none of it."""
    code = (
        "import sys; from convotic_celery.app import create_app; from convotic_celery.settings "
        "import Settings; create_app(Settings(modules=[])); "
        "print('convotic_celery.telemetry.tracing' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(
    not isinstance(trace.get_tracer_provider(), ProxyTracerProvider),
    reason="this process has a TracerProvider",
)
def test_a_missing_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ConfigurationError, match=r"convotic-celery\[otel\]"):
        set_up_tracing()


def test_a_message_is_sent_as_it_is_where_nobody_records_spans() -> None:
    """Without a TracerProvider no attribute is added, and one that is there is passed on."""
    message = OutgoingMessage("orders.new", b"1", {"traceparent": "as it was"})

    sent, _ = PublishTracing()(message)

    assert sent == message


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where this test's spans go; the process's provider stays as it is."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    return exporter


def _describe(span: ReadableSpan) -> tuple[str, str]:
    return span.name, str((span.attributes or {}).get("error.type", ""))


def test_a_task_inside_of_a_task_has_a_span_of_its_own(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called eagerly, it ends its own span; the outer one goes on, and fails or not by itself."""
    for signal in (signals.task_prerun, signals.task_postrun, signals.task_failure):
        monkeypatch.setattr(signal, "receivers", list(signal.receivers or []))
    monkeypatch.setattr(signals.before_task_publish, "receivers", [])
    trace_tasks()
    app = Celery("traced", set_as_current=False, broker="memory://")

    @app.task(name="inner")
    def inner(fails: bool) -> None:
        if fails:
            raise KeyError("inner")

    @app.task(name="outer")
    def outer(fails: bool) -> None:
        inner.apply((fails,))
        current.append(trace.get_current_span().get_span_context().span_id)

    current: list[int] = []
    outer.apply((False,))
    outer.apply((True,))

    ended = spans.get_finished_spans()
    assert [_describe(span) for span in ended] == [
        ("process inner", ""),
        ("process outer", ""),
        ("process inner", "KeyError"),
        ("process outer", ""),
    ]
    outers = [span.context.span_id for span in ended if span.name == "process outer"]
    assert current == outers
    assert not trace.get_current_span().get_span_context().is_valid


class Mute(Exception):
    """An error that can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def begin_run() -> tuple[TraceRuns, Any, Any]:
    """Begin the span of a run; return what its end is called with."""
    message = SimpleNamespace(ordering_key="")
    delivery = SimpleNamespace(
        topic="orders", handler="orders.shop", message_id="1", attempt=1, is_replay=False, trace={}
    )
    runs, ctx = TraceRuns(), SimpleNamespace(_delivery=delivery)
    runs.before(message, ctx)
    return runs, message, ctx


def test_an_error_that_can_t_be_shown_has_a_span(spans: InMemorySpanExporter) -> None:
    """Its type is; and the run's error stays that."""
    runs, message, ctx = begin_run()

    runs.on_error(message, ctx, Mute())

    assert [_describe(span) for span in spans.get_finished_spans()] == [("process orders", "Mute")]


async def test_a_run_that_is_stopped_has_a_span(spans: InMemorySpanExporter) -> None:
    """Terminated by a revoke, or by a second SIGTERM: its hooks are not called any more."""
    began = asyncio.Event()

    async def run() -> None:
        begin_run()
        began.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(run())
    await began.wait()
    assert not spans.get_finished_spans()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert [_describe(span) for span in spans.get_finished_spans()] == [
        ("process orders", "CancelledError")
    ]
