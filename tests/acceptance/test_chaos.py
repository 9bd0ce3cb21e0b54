"""Chaos in its short form; `make chaos` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: One of each kind: a process, a connection, a store that answers with an error.
FAULTS = (
    "worker-killed",
    "worker-stopped-warm",
    "broker-killed",
    "broker-half-open",
    "store-killed",
    "store-readonly",
    "store-out-of-memory",
    "store-busy",
    "worker-out-of-descriptors",
)


@pytest.mark.long
def test_nothing_is_lost_or_given_up_unrun(tmp_path: Path) -> None:
    """Whatever breaks, each confirmed message is processed, or dead-lettered after it ran."""
    figures = tmp_path / "figures.json"
    options = ("--seconds", "54", "--each", "5", "--rate", "20", "--json", str(figures))
    command = [sys.executable, "-m", "tests.chaos", *options, "--faults", ",".join(FAULTS)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["confirmed"] > 100
    assert found["processed"] + found["dead_lettered"] >= found["confirmed"]
    assert found["reasons"].keys() <= {"max-retries-exceeded"}
