"""What it costs to be observed: ``python -m benchmarks.observing metrics|events``.

A worker processes a backlog, and meanwhile stops and resumes counting its runs (or sending task
events). Neighbouring spans are compared, so that neither the machine's speed nor what else runs on
it matters: 400 pairs give a ratio to about one percent, which runs of their own do not (they differ
by a quarter).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from celery.signals import worker_ready

from benchmarks.ours import Bench
from convotic_celery.runtime.delivery.counters import outcomes
from convotic_celery.runtime.delivery.observing import observers
from convotic_celery.telemetry.run_figures import RunFigures
from tests.conftest import end_servers

__all__ = ["Span", "compare", "toggle"]

#: Events gather for a quarter of a second: a span of theirs begins when those of the last are sent.
_SPANS = {"metrics": (0.0, 0.2), "events": (0.4, 0.4)}
#: Fewer messages in a span are the begin or the end of a backlog.
_ENOUGH = 200


Switch: TypeAlias = Callable[[bool], None]


class Span(NamedTuple):
    """A stretch of a worker's work, observed or not."""

    observed: bool
    messages: int
    cpu_seconds: float
    seconds: float


def toggle(path: Path, what: str) -> None:
    """In a worker: begin to switch its observers off and on, and write down what each span did."""
    dispatchers: list[Any] = []

    def note(sender: Any, **_: object) -> None:
        dispatchers.append(sender.event_dispatcher)

    worker_ready.connect(note, weak=False)
    switches = {"metrics": _find_metrics, "events": partial(_find_events, dispatchers)}
    threading.Thread(
        target=_toggle, args=(path, switches[what], *_SPANS[what]), daemon=True
    ).start()


def _toggle(path: Path, find: Callable[[], Switch | None], settle: float, length: float) -> None:
    pause = threading.Event().wait
    while not (switch := find()):
        pause(0.05)
    observed = True
    while True:
        pause(settle)
        before, cpu, began = _processed(), time.process_time(), time.perf_counter()
        pause(length)
        span = Span(
            observed,
            _processed() - before,
            time.process_time() - cpu,
            time.perf_counter() - began,
        )
        with path.open("a") as file:
            file.write(json.dumps(span) + "\n")
        observed = not observed
        switch(observed)


def _find_metrics() -> Switch | None:
    found = [o for o in observers.added if isinstance(o, RunFigures)]
    return (lambda on: (observers.add if on else observers.remove)(found[0])) if found else None


def _find_events(dispatchers: list[Any]) -> Switch | None:
    return (lambda on: setattr(dispatchers[0], "enabled", on)) if dispatchers else None


def _processed() -> int:
    return sum(sum(counts.values()) for counts in outcomes.snapshot().values())


def compare(spans: Sequence[Span]) -> dict[str, float]:
    """Return the ratios observed to not, of neighbours, and the standard errors."""
    rates: list[float] = []
    costs: list[float] = []
    for pair in itertools.pairwise(spans):
        if pair[0].observed == pair[1].observed or min(s.messages for s in pair) < _ENOUGH:
            continue
        on, off = sorted(pair, key=lambda span: not span.observed)
        rates.append(math.log(on.messages / on.seconds) - math.log(off.messages / off.seconds))
        costs.append(
            math.log(on.cpu_seconds / on.messages) - math.log(off.cpu_seconds / off.messages)
        )
    figures: dict[str, float] = {"pairs": len(rates)}
    for name, logs in (("throughput", rates), ("worker CPU a message", costs)):
        figures[name] = round(math.exp(statistics.mean(logs)), 4)
        # Each span is in two pairs.
        error = statistics.stdev(logs) * math.sqrt(2 / len(logs))
        figures[f"{name}, standard error"] = round(error, 4)
    return figures


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=_SPANS)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="convotic-observing-"))
    spans: list[Span] = []
    try:
        bench = Bench(folder / "ours", options.messages, 0)
        bench.declare()
        os.environ["CONVOTIC_HEALTH_PORT"] = "0"
        for number in range(options.rounds):
            path = folder / f"spans-{number}"
            bench.throughput(events=options.what == "events", toggle=path, toggled=options.what)
            spans += [Span(*json.loads(line)) for line in path.read_text().splitlines()]
    finally:
        end_servers(folder / "ours")
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(compare(spans), indent=2))


if __name__ == "__main__":
    main()
