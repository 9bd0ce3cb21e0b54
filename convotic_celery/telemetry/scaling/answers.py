"""What ``convotic scaling`` answers: to Prometheus, to KEDA and CREMA, to people.

KEDA's Prometheus scaler, which CREMA uses too, queries ``/api/v1/query`` of a Prometheus. This
answers that path for the metrics below, so that no Prometheus has to run, and its scrape interval
delays nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from convotic_celery.telemetry.exposition import Exposition, Family
from convotic_celery.telemetry.server import Answer, json_answer

if TYPE_CHECKING:
    from convotic_celery.telemetry.scaling.scaler import Demand, Scaler

__all__ = ["SCALING_METRICS", "ScalingSource"]

#: Names and what they say; the table of ``docs/scaling.md``. All but the first two are by handler.
SCALING_METRICS: Final = {
    "convotic_needed_workers": "Workers that are needed for all handlers together.",
    "convotic_reporting_workers": "Workers that run and report.",
    "convotic_handler_needed_workers": "Workers that a handler alone would need.",
    "convotic_handler_waiting_messages": "Messages that wait for a slot, as far as is known.",
    "convotic_handler_busy_slots": "Slots that are taken, in all workers.",
    "convotic_handler_runs_per_second": "Runs that ended a second, over ten seconds.",
    "convotic_handler_run_seconds": "Average time of a run lately.",
    "convotic_handler_workers": "Workers that pull the handler's messages.",
}

_PATHS = ["/", "/metrics", "/api/v1/query", "/livez", "/readyz"]
#: ``NAME``, ``NAME{handler="H"}``, ``NAME{handler=~"REGEX"}``, and any of these in ``max()``.
_QUERY = re.compile(
    r'\s*(?P<max>max\s*\(\s*)?(?P<name>[a-z_]+)\s*(\{\s*handler\s*(?P<op>=~?)\s*"(?P<value>[^"]*)"'
    r"\s*\})?\s*(?(max)\)\s*)"
)

_Samples = list[tuple[str, float]]


class ScalingSource:
    """Answers for a scaler."""

    def __init__(self, scaler: Scaler) -> None:
        self._scaler = scaler
        self._exposition = Exposition()

    def answer(self, path: str, accept: str, query: str = "") -> Answer | None:
        """Answer a path."""
        demand = self._scaler.demand
        if path not in _PATHS:
            return json_answer(404, {"status": "not found", "paths": _PATHS})
        if path == "/livez":
            return json_answer(200, {"status": "live"})
        if demand is None:
            return json_answer(
                503, {"status": "error", "errorType": "unavailable", "error": self._scaler.problem}
            )
        if path == "/metrics":
            return Answer(200, *self._exposition.write(_collect(demand), accept))
        if path == "/api/v1/query":
            return _answer_query(demand, parse_qs(query).get("query", [""])[0])
        return json_answer(200, {"status": "ready", **asdict(demand)})


def _samples(demand: Demand) -> dict[str, _Samples]:
    """Return handlers and values by metric; what belongs to no handler has the handler ""."""
    handlers = sorted(demand.handlers.items())
    return {
        "convotic_needed_workers": [("", demand.needed)],
        "convotic_reporting_workers": [("", demand.workers)],
        "convotic_handler_needed_workers": [(n, h.needed) for n, h in handlers],
        "convotic_handler_waiting_messages": [(n, h.waiting) for n, h in handlers],
        "convotic_handler_busy_slots": [(n, h.busy) for n, h in handlers],
        "convotic_handler_runs_per_second": [(n, h.rate) for n, h in handlers],
        "convotic_handler_run_seconds": [
            (n, h.run_seconds) for n, h in handlers if h.run_seconds is not None
        ],
        "convotic_handler_workers": [(n, h.workers) for n, h in handlers],
    }


def _collect(demand: Demand) -> Iterator[Family]:
    for name, samples in _samples(demand).items():
        labels = ("handler",) if name.startswith("convotic_handler_") else ()
        rows = [((handler,) if labels else (), value) for handler, value in samples]
        yield Family(name, "gauge", labels, SCALING_METRICS[name], rows)


def _answer_query(demand: Demand, query: str) -> Answer:
    """Answer as Prometheus does; what it is asked is one of a few forms."""
    found = _QUERY.fullmatch(query)
    if found is None or found["name"] not in SCALING_METRICS:
        error = (
            f"{query!r} is not answered here: ask for one of {', '.join(SCALING_METRICS)}, with "
            'nothing, {handler="NAME"} or {handler=~"REGEX"} behind it, and max() around it'
        )
        return json_answer(400, {"status": "error", "errorType": "bad_data", "error": error})
    samples = _samples(demand)[found["name"]]
    try:
        samples = [each for each in samples if _is_asked_for(each[0], found["op"], found["value"])]
    except re.error as error:
        text = f"{found['value']!r} is no regular expression: {error}"
        return json_answer(400, {"status": "error", "errorType": "bad_data", "error": text})
    if found["max"] and samples:
        samples = [("", max(value for _, value in samples))]
    name = "" if found["max"] else str(found["name"])
    now = time.time()
    result = [
        {"metric": _labels(name, handler), "value": [now, f"{value:g}"]}
        for handler, value in samples
    ]
    return json_answer(
        200, {"status": "success", "data": {"resultType": "vector", "result": result}}
    )


def _labels(name: str, handler: str) -> dict[str, str]:
    labels = {"__name__": name, "handler": handler}
    return {label: value for label, value in labels.items() if value}


def _is_asked_for(handler: str, operator: str | None, value: str) -> bool:
    if operator is None:
        return True
    return handler == value if operator == "=" else re.fullmatch(value, handler) is not None
