"""A scrape of a real worker: every metric of the documents, with what has happened."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics

from convotic_celery.telemetry.metrics import METRICS
from tests.acceptance.stage import QUEUE, TOPIC
from tests.acceptance.test_health import healthy_worker
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage
    from tests.acceptance.test_health import Port

QUEUES = {
    "celery",
    QUEUE,
    "custom.orders.plain.shop",
    *(f"sabotage.{name}.sabotage" for name in ("here", "plain", "leased")),
}

#: Not typed.
parse: Any = openmetrics.text_string_to_metric_families


def scrape(port: Port) -> dict[str, float]:
    """Return the samples of the tests' handler, and those without a handler, by name."""
    found: dict[str, float] = {}
    families = list(parse(port.get("/metrics", accept="application/openmetrics-text")))
    assert {family.name for family in families} == METRICS.keys()
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            # No process's own subscription: each restart would add a name.
            assert labels.get("handler", "celery") in QUEUES
            about = labels.get("handler") or labels.get("name") or labels.get("queue_name")
            if about in {QUEUE, None} and "le" not in labels:
                more = [labels[key] for key in ("outcome", "reason", "exception") if key in labels]
                found[" ".join([sample.name, *more])] = sample.value
    return found


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_scrape_says_what_has_happened(embedded_stage: Stage, pool: str) -> None:
    """Two orders processed, one invalid, one failed and waiting for its retry."""
    stage = embedded_stage
    arguments = [] if pool == "asyncio" else ["-P", pool, "-c", "2"]
    # It waits for its retry as long as anybody looks.
    stage.environment["CONVOTIC_HANDLER_OPTIONS"] = json.dumps({TOPIC: {"ack_deadline": 600}})
    # Each is counted where it arises: not all at the same moment.
    expected = {
        "convotic_messages_total dead_lettered": 1,
        "convotic_messages_total retried": 1,
        "celery_task_succeeded_total": 2,
        "celery_task_failed_total InvalidMessage": 1,
        "convotic_dead_letters_total invalid": 1,
        "convotic_waiting_retries": 1,
        "convotic_slots": 1,
        "celery_active_process_count": 1,
        "celery_task_runtime_count": 2,
        "celery_worker_up": 1,
        "convotic_ready": 1,
    }
    with healthy_worker(stage, *arguments) as (_, port):
        stage.publish_json({"id": 1}, {"id": 2}, {"id": 3, "fail": True})
        stage.publish(b"no JSON")
        wait_until(lambda: expected.items() <= scrape(port).items(), what=str(expected))
        wait_until(lambda: scrape(port)["convotic_ack_confirmation_seconds_count"] >= 3)
        found = scrape(port)
        text = port.get("/metrics")

    assert expected.items() <= found.items()
    assert found["convotic_deliveries_total"] >= 4
    assert 0 < found["celery_task_runtime_sum"] < PATIENCE
    assert 0 < found["convotic_queue_seconds_sum"] < 4 * PATIENCE
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode in {0, 3}  # 3: only celery-exporter's names are blamed
