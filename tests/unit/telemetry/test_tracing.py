"""What tracing costs where it is off, and what it says where it can't be set up."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

from convotic_celery.errors import ConfigurationError
from convotic_celery.telemetry.tracing import PublishTracing, set_up_tracing
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
