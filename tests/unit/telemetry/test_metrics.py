"""A worker's metrics: what they count, and the documents about them."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from convotic_celery.runtime.delivery.observing import MessageSettled, ObservedMessage
from convotic_celery.runtime.delivery.payload import read_facts
from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun, ReturnUnrun
from convotic_celery.telemetry.health import Health
from convotic_celery.telemetry.metrics import METRICS, WorkerMetrics
from convotic_celery.telemetry.run_figures import RunFigures
from convotic_pubsub.figures import Latencies, QueueVitals, SessionVitals
from tests.unit.runtime.support import PUBLISHED_AT, define, receive

#: Not typed.
parse: Any = openmetrics.text_string_to_metric_families
parse_old: Any = parser.text_string_to_metric_families

ROOT = Path(__file__).parents[3]
HANDLER = "orders.new.shop"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BEGAN = PUBLISHED_AT.timestamp() + 2.0
DEFINITION = define()


def observe(figures: RunFigures, settlement: Any, *, seconds: float | None = 0.02) -> None:
    """Report one delivery, which waited two seconds; without ``seconds`` it did not run."""
    message = ObservedMessage(DEFINITION, read_facts(receive()), "task")
    if seconds is None:
        figures.message_settled(MessageSettled(message, settlement, BEGAN))
        return
    figures.message_settled(MessageSettled(message, settlement, BEGAN + seconds, BEGAN))


def make_vitals() -> SessionVitals:
    """Return a session that consumes one queue."""
    confirmations = Latencies()
    confirmations.add(0.02)
    queue = QueueVitals(
        queue=HANDLER,
        concurrency=4,
        running=3,
        buffered=2,
        waiting=1,
        received=9,
        renewals=5,
        confirmations=confirmations,
        is_pulled=True,
        silent_seconds=0.0,
        trouble="",
        unconfirmed_seconds=0.0,
        heard_seconds=1.0,
    )
    return SessionVitals(
        is_alive=True,
        queues=(queue,),
        outstanding=6,
        lease_behind_seconds=0.0,
        publishes=confirmations,
        publish_failures=1,
        dead_lettered={},
    )


def make_metrics(figures: RunFigures) -> WorkerMetrics:
    """Return the metrics of a worker."""
    return WorkerMetrics(
        "celery@here", figures, lambda: [make_vitals()], Health, lambda: {HANDLER: 12}
    )


@pytest.fixture
def figures() -> RunFigures:
    """Figures of one delivery of each outcome."""
    figures = RunFigures()
    observe(figures, Ack("succeeded"))
    observe(figures, Ack("dropped", "not ours"))
    observe(figures, Ack("duplicate"))
    observe(figures, Ack("expired"), seconds=None)
    observe(figures, RetryRun(30.0))
    observe(figures, Defer(1.0))
    observe(figures, Fail("max-retries-exceeded", 3, "ValueError", "out of stock"))
    observe(figures, Fail("rejected", 1, "DeadLetter"))
    observe(figures, ReturnUnrun(), seconds=None)
    return figures


def samples(figures: RunFigures) -> dict[str, float]:
    """Return what is scraped, by name and labels beside hostname."""
    text = make_metrics(figures).answer(OPENMETRICS).body.decode()
    found = {}
    for family in parse(text):
        for sample in family.samples:
            assert sample.labels["hostname"] == "celery@here"
            labels = {k: v for k, v in sample.labels.items() if k not in {"hostname", "handler"}}
            found[" ".join([sample.name, *labels.values()])] = sample.value
    return found


def test_each_outcome_is_counted_under_its_names(figures: RunFigures) -> None:
    """celery-exporter's and ours."""
    found = samples(figures)

    task = f"{HANDLER} {HANDLER}"
    assert found[f"celery_task_received_total {task}"] == 9
    assert found[f"celery_task_sent_total {task}"] == 9
    assert found[f"celery_task_started_total {task}"] == 7
    assert found[f"celery_task_succeeded_total {task}"] == 1
    assert found[f"celery_task_failed_total {task} ValueError"] == 1
    assert found[f"celery_task_rejected_total {task}"] == 1
    assert found[f"celery_task_retried_total {task}"] == 1
    assert found[f"celery_task_runtime_count {task}"] == 1
    assert found[f"celery_task_runtime_bucket {task} 0.025"] == 1
    assert found[f"celery_task_runtime_bucket {task} 0.01"] == 0
    assert found["convotic_queue_seconds_sum"] == pytest.approx(14.0)
    assert found["convotic_run_seconds_count"] == 7
    outcomes = {k.split()[1]: v for k, v in found.items() if k.startswith("convotic_messages")}
    assert outcomes == {
        "succeeded": 1,
        "dropped": 1,
        "duplicate": 1,
        "expired": 1,
        "retried": 1,
        "deferred": 1,
        "dead_lettered": 2,
        "returned_unrun": 1,
    }
    assert found["convotic_dead_letters_total max-retries-exceeded"] == 1


def test_the_transports_figures_are_gauges_and_counters(figures: RunFigures) -> None:
    """Slots, buffer, leases, confirmations."""
    found = samples(figures)

    assert found["convotic_slots"] == 4
    assert found["convotic_slots_busy"] == 3
    assert found["convotic_buffered_messages"] == 2
    assert found["convotic_waiting_retries"] == 1
    assert found["convotic_lease_extensions_total"] == 5
    assert found["convotic_outstanding_messages"] == 6
    assert found["convotic_ack_confirmation_seconds_count"] == 1
    assert found["convotic_publish_failures_total"] == 1
    assert found[f"celery_queue_length {HANDLER}"] == 12
    assert found[f"celery_active_process_count {HANDLER}"] == 4
    assert found["convotic_ready"] == 1
    assert found["convotic_stalled hub-stuck"] == 0


def test_prometheus_old_format_is_spoken_too(figures: RunFigures) -> None:
    """A scraper that does not ask for OpenMetrics gets the other."""
    answer = make_metrics(figures).answer("*/*")

    names = {each.name for each in parse_old(answer.body.decode())}
    assert answer.content_type.startswith("text/plain")
    assert {"celery_task_succeeded", "convotic_queue_seconds"} <= names


def test_the_document_has_each_metric_as_the_code_has_it() -> None:
    """docs/metrics.md is held to the table in the code."""
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \| (.*?) \| (.*?) \|",
        (ROOT / "docs" / "metrics.md").read_text(),
        re.MULTILINE,
    )

    assert {name: (kind, labels, text) for name, kind, labels, text in rows} == {
        name: (each.kind, ", ".join(f"`{label}`" for label in each.labels), each.text)
        for name, each in METRICS.items()
    }


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    """A misspelt one would never show anything."""
    known = {
        name + suffix for name in METRICS for suffix in ("", "_total", "_bucket", "_count", "_sum")
    }
    folder = ROOT / "deploy" / "grafana"
    dashboard = json.loads((folder / "dashboard.json").read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    asked.append((folder / "alerts.yaml").read_text())

    used = {name for text in asked for name in re.findall(r"\b(?:celery|convotic)_[a-z_]+", text)}

    assert used - known == set()
    assert len(used) > 15


def test_no_success_is_counted_twice_or_lost_between_threads() -> None:
    """Several threads report and one asks meanwhile; what waits to be counted stays bounded."""
    figures = RunFigures()
    each, threads = 2500, 4
    done = threading.Event()
    seen: list[int] = []

    def report() -> None:
        for _ in range(each):
            observe(figures, Ack("succeeded"))

    def ask() -> None:
        while not done.wait(0.001):
            seen.extend(found.runs for found in figures.handlers.values())

    asking = threading.Thread(target=ask)
    reporting = [threading.Thread(target=report) for _ in range(threads)]
    for thread in (asking, *reporting):
        thread.start()
    for thread in reporting:
        thread.join()
    done.set()
    asking.join()

    found = figures.handlers[HANDLER]
    assert (found.runs, found.first_deliveries) == (each * threads, each * threads)
    assert seen == sorted(seen)


def test_successes_that_nobody_asks_about_take_no_memory() -> None:
    """A thousand are noted at most."""
    figures = RunFigures()

    for _ in range(2999):
        observe(figures, Ack("succeeded"))

    assert len(figures._noted) == 999
    assert figures.handlers[HANDLER].runs == 2999
