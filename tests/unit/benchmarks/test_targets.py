"""The guard compares ratios of two runs, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.figures import Sample
from benchmarks.targets import TARGETS, find_worse

BASELINE = Path(__file__).parents[3] / "benchmarks" / "baseline.json"
_RUN = {
    "throughput/convotic": [5000.0, 6000.0, 7000.0],
    "throughput/celery rabbitmq": [3000.0],
    "start/convotic": [2.0],
    "start/celery redis": [1.5],
}


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    """An earlier run."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"figures": _RUN}))
    return path


def samples(factor: float = 1.0, **changes: float) -> dict[str, Sample]:
    return {
        name: Sample(tuple(value * factor * changes.get(name, 1.0) for value in values))
        for name, values in _RUN.items()
    }


def test_a_slower_machine_is_no_reason(guard: Path) -> None:
    """All rates a third: the ratios are the same."""
    assert find_worse(samples(1 / 3), guard) == []


@pytest.mark.parametrize(
    ("figure", "factor", "told"),
    [
        ("throughput/convotic", 0.7, "throughput, to Celery + RabbitMQ: 1.40, was 2.00"),
        ("start/convotic", 1.5, "worker start, to Celery on Redis: 2.00, was 1.33"),
    ],
)
def test_a_worse_ratio_is_told(guard: Path, figure: str, factor: float, told: str) -> None:
    """A rate that fell and a time that rose, by more than a third."""
    assert find_worse(samples(**{figure: factor}), guard) == [told]


def test_a_little_worse_is_noise(guard: Path) -> None:
    """A fifth is what quiet runs differ by."""
    assert find_worse(samples(**{"throughput/convotic": 0.8}), guard) == []


def test_neighbours_are_compared() -> None:
    """A machine that was fast in one turn and slow in the next says nothing of the ratio."""
    turns = {
        "orders/convotic": Sample((2000.0, 1000.0, 2100.0)),
        "orders/celery rabbitmq": Sample((1000.0, 500.0, 700.0)),
    }
    (target,) = (t for t in TARGETS if t.figure == "orders/convotic" and t.base in turns)

    assert target.quotient(turns) == 2.0


def test_what_a_run_lacks_is_not_compared(guard: Path) -> None:
    """A peer that could not run says nothing about us."""
    found = samples(**{"throughput/convotic": 0.1})
    del found["throughput/celery rabbitmq"]

    assert find_worse(found, guard) == []


def test_baseline_is_a_run() -> None:
    """What the guard compares with: every figure is there, all peers' too."""
    kept = json.loads(BASELINE.read_text())
    found = {name: Sample(tuple(values)) for name, values in kept["figures"].items()}

    assert find_worse(found, BASELINE) == []
    needed = {t.figure for t in TARGETS} | {t.base for t in TARGETS if isinstance(t.base, str)}
    assert {name for name in needed - found.keys() if not name.startswith("backlog/")} == set()
    slower = found | {"throughput/convotic": Sample((1.0,))}
    assert len(find_worse(slower, BASELINE)) > 3


def test_a_tail_may_differ_more(guard: Path) -> None:
    """The p99 of two quiet runs differs by more than a third; twice as bad is told."""
    tail = {"latency/convotic/p99": [2.0], "latency/celery rabbitmq/p99": [2.0]}
    guard.write_text(json.dumps({"figures": _RUN | tail}))
    found = samples() | {name: Sample(tuple(values)) for name, values in tail.items()}

    assert find_worse(found | {"latency/convotic/p99": Sample((3.0,))}, guard) == []
    assert find_worse(found | {"latency/convotic/p99": Sample((4.2,))}, guard) == [
        "latency p99, to Celery + RabbitMQ: 2.10, was 1.00"
    ]
