"""Prometheus's own tool reads what we write. It is in Debian's package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from convotic_celery.runtime.delivery.settlement import Ack, Fail
from convotic_celery.telemetry.run_figures import RunFigures
from tests.support.waiting import PATIENCE
from tests.unit.telemetry.test_metrics import make_metrics, observe

ALERTS = Path(__file__).parents[3] / "deploy" / "grafana" / "alerts.yaml"

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*arguments: str, text: bytes = b"") -> list[str]:
    """Run it; return the lines that it says."""
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, timeout=PATIENCE, check=False
    )
    return (done.stdout + done.stderr).decode().split("\n")


def test_the_alert_rules_are_valid() -> None:
    """Prometheus would load them."""
    assert "  SUCCESS: 8 rules found" in promtool("check", "rules", str(ALERTS))


def test_the_metrics_can_be_scraped() -> None:
    """Only names that are celery-exporter's are blamed, for their suffix."""
    figures = RunFigures()
    observe(figures, Ack("succeeded"))
    observe(figures, Fail("rejected", 1, 'Odd "name"\\', "text"))

    said = promtool("check", "metrics", text=make_metrics(figures).answer("*/*").body)

    assert {line.split()[0] for line in said if line} == {
        "celery_active_consumer_count",
        "celery_active_process_count",
        "celery_active_worker_count",
    }
