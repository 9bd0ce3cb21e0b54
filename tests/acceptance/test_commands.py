"""The `convotic` command against real servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from convotic_celery.embedded import store
from convotic_emulator import daemon
from tests.acceptance.commands import convotic
from tests.acceptance.stage import TOPIC, Stage
from tests.support.waiting import PATIENCE, wait_until


def test_publish_reaches_a_running_worker(stage: Stage) -> None:
    """`convotic publish` prints the message id, and the handler gets data and attributes."""
    with stage.worker():
        done = convotic(stage, "publish", TOPIC, '{"id": 1}', "--attribute", "source=shell")

        assert done.returncode == 0, done.stderr
        (run,) = wait_until(lambda: stage.read_runs("end"))

    assert run["id"] == done.stdout.strip()
    assert run["data"] == {"id": 1}
    assert run["attributes"] == {"source": "shell"}


def test_publish_to_an_unknown_topic_says_where_it_looked(embedded_stage: Stage) -> None:
    """One line: what may be meant, the modules and the data folder; also from a sub-folder."""
    stage = embedded_stage
    (stage.folder / "scripts").mkdir()
    done = convotic(stage, "publish", "custom.order.new", "{}", folder="scripts")

    assert done.returncode == 1
    start, refusal = done.stderr.splitlines()
    assert start == f"Starting the embedded servers; their data is in {stage.data_dir}"
    assert "'custom.order.new' does not exist" in refusal
    assert "Did you mean 'custom.orders.new'?" in refusal
    assert f"Modules here: shop, from {stage.folder}/modules;" in refusal
    assert f"data folder: {stage.data_dir})" in refusal


def test_emulator_status_and_stop_are_about_both_servers(embedded_stage: Stage) -> None:
    """`status` shows what a worker has started; `stop` ends it; then `status` exits with 3."""
    with embedded_stage.worker():
        status = convotic(embedded_stage, "emulator", "status")
    assert embedded_stage.address in status.stdout
    assert "valkey.sock" in status.stdout

    stopped = convotic(embedded_stage, "emulator", "stop")

    assert stopped.stdout == "emulator: stopped\nstore: stopped\n"
    assert store.status(embedded_stage.data_dir) is None
    assert daemon.status(embedded_stage.data_dir) is None
    assert convotic(embedded_stage, "emulator", "status").returncode == 3


def test_the_emulator_in_the_foreground_prints_its_variable(data_dir: Path) -> None:
    """`convotic emulator` serves until Ctrl-C and prints the line that clients need."""
    command = [sys.executable, "-m", "convotic_celery.cli", "emulator", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as emulator:
        assert emulator.stdout is not None
        line = emulator.stdout.readline().strip()
        status = daemon.status(data_dir)
        emulator.terminate()
        emulator.communicate(timeout=PATIENCE)

    assert status is not None
    assert line == f"PUBSUB_EMULATOR_HOST={status['address']}"
    assert emulator.returncode == 0
