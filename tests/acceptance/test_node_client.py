"""Google's official client of Node publishes and consumes, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from convotic_emulator.testing import EmulatorThread

SOURCE = Path(__file__).parent / "node"

pytestmark = pytest.mark.timeout(300)  # the first run downloads 40 MB


def test_node_publishes_and_consumes(node_folder: Path, pubsub_emulator: EmulatorThread) -> None:
    """Topics, batches, a filter, ordering with a nack, StreamingPull, errors, deletion."""
    environment = os.environ | {
        "PUBSUB_EMULATOR_HOST": pubsub_emulator.address,
        "PUBSUB_PROJECT_ID": "p",
        "NODE_PATH": str(node_folder / "node_modules"),
    }
    done = subprocess.run(
        ["node", str(SOURCE / "client.js")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["nacked"] == 1
    assert result["fromBatches"] == 99
    assert sorted(result["numbers"]) == list(range(1, 100))
    assert result["ordered"] == ["ordered 1", "ordered 2"]
    assert result["exists"] is False
    assert result["filter"] == 'attributes.kind = "wanted"'
    assert pubsub_emulator.server.engine.registry.topics == {}
