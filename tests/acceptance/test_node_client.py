"""Google's official client of Node publishes and consumes, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from convotic_emulator.testing import EmulatorThread

SOURCE = Path(__file__).parent / "node"

pytestmark = pytest.mark.timeout(300)  # the first run downloads 40 MB


def run(script: str, node_folder: Path, emulator: EmulatorThread) -> Any:
    """Run a script with the client; return what it prints."""
    environment = os.environ | {
        "PUBSUB_EMULATOR_HOST": emulator.address,
        "PUBSUB_PROJECT_ID": "p",
        "NODE_PATH": str(node_folder / "node_modules"),
    }
    done = subprocess.run(
        ["node", str(SOURCE / script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_node_publishes_and_consumes(node_folder: Path, pubsub_emulator: EmulatorThread) -> None:
    """Topics, batches, a filter, ordering with a nack, StreamingPull, errors, deletion."""
    result = run("client.js", node_folder, pubsub_emulator)

    assert result["nacked"] == 1
    assert result["fromBatches"] == 99
    assert sorted(result["numbers"]) == list(range(1, 100))
    assert result["ordered"][-2:] == ["ordered 1", "ordered 2"]  # the nack repeats the second
    assert result["exists"] is False
    assert result["filter"] == 'attributes.kind = "wanted"'
    assert pubsub_emulator.server.engine.registry.topics == {}


def test_a_publisher_has_the_id_before_the_message_arrives(
    node_folder: Path, pubsub_emulator: EmulatorThread
) -> None:
    """Of 200 messages, all of which arrived before; a few may, as two answers are read at once."""
    assert run("ids.js", node_folder, pubsub_emulator)["early"] <= 5
