"""Settings of Pub/Sub, as far as only real servers show them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil

from convotic_celery.embedded import broker_address
from convotic_celery.settings import Settings
from convotic_emulator import daemon
from tests.acceptance.commands import convotic, wait_for_answers
from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.lines import read_lines
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.acceptance.stage import Worker


def test_two_apps_on_one_project_are_kept_apart_by_prefixes(stage: Stage) -> None:
    """The same module twice: each app gets its own messages, its own orders, its own answers."""
    with run_worker(stage, "green"), run_worker(stage, "blue"):
        stage.environment["CONVOTIC_PREFIX"] = "green-"
        published = convotic(stage, "publish", TOPIC, '{"id": 1}')
        wait_until(lambda: read_ends(stage, "green-") == 1)  # what is paused would not run it
        paused = wait_for_answers(stage, "pause", QUEUE, workers={"green"})
        stage.publish_json({"id": 2}, topic=f"blue-{TOPIC}")
        wait_until(lambda: read_ends(stage, "blue-") == 1)
        assert read_ends(stage, "green-") == 1

    assert published.returncode == 0, published.stderr
    assert paused.keys() == {"green"}


def run_worker(stage: Stage, colour: str) -> AbstractContextManager[Worker]:
    """Run the worker of the app with this prefix."""
    record = str(stage.folder / f"{colour}-record")
    return stage.worker(
        "-n", f"{colour}@%h", CONVOTIC_PREFIX=f"{colour}-", CONVOTIC_TEST_RECORD=record
    )


def read_ends(stage: Stage, prefix: str) -> int:
    """Return how many messages an app's handler has finished."""
    lines = read_lines(stage.folder / f"{prefix}record")
    return sum(json.loads(line)["what"] == "end" for line in lines)


def test_emulator_fsync_reaches_the_emulator_that_is_started(embedded_stage: Stage) -> None:
    """CONVOTIC_EMULATOR_FSYNC is said to the server on its command line."""
    data_dir = embedded_stage.data_dir

    broker_address(Settings(data_dir=data_dir, emulator_fsync=True))

    info = daemon.status(data_dir)
    assert info is not None
    assert "--fsync" in psutil.Process(info["pid"]).cmdline()
