"""Which events monitors can keep."""

from __future__ import annotations

from typing import Any

import pytest

from convotic_pubsub.celery.event_rules import explain

WORKER = {"type": "worker-heartbeat", "hostname": "a@b", "timestamp": 1.5, "utcoffset": 0}
TASK = {"type": "task-sent", "hostname": "a@b", "timestamp": 1, "uuid": "u", "parent_id": None}


@pytest.mark.parametrize(
    "event", [WORKER, TASK, {"type": "my-own", "hostname": "x", "timestamp": 1, "anything": []}]
)
def test_what_celery_sends_is_fine(event: dict[str, Any]) -> None:
    """And so is an application's own event, whatever is in it."""
    assert explain(event) == ""


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ([], "dictionary"),
        ({}, "type"),
        ({**WORKER, "type": 5}, "type"),
        ({**WORKER, "hostname": 5}, "hostname"),
        ({**WORKER, "timestamp": "soon"}, "timestamp"),
        ({**WORKER, "timestamp": float("inf")}, "timestamp"),
        ({**WORKER, "timestamp": float("nan")}, "timestamp"),
        ({**WORKER, "timestamp": 1e300}, "timestamp"),
        ({**WORKER, "utcoffset": 1e9}, "utcoffset"),
        ({**WORKER, "clock": 10**400}, "clock"),
        ({**WORKER, "active": []}, "active"),
        ({**TASK, "uuid": None}, "uuid"),
        ({**TASK, "uuid": []}, "uuid"),
        ({**TASK, "timestamp": None}, "timestamp"),
        ({**TASK, "runtime": "long"}, "runtime"),
        ({**TASK, "name": {}}, "name"),
    ],
)
def test_what_monitors_would_stumble_over_is_named(event: Any, problem: str) -> None:
    """They sort by clock and time, and find tasks and workers by name."""
    assert problem in explain(event)
