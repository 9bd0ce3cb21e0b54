"""`convotic worker --processes N` with real workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil

from convotic_celery.cli.demo.child import Child
from tests.acceptance.commands import convotic, wait_for_answers
from tests.acceptance.stage import QUEUE
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage


def test_a_killed_worker_is_replaced_and_loses_nothing(embedded_stage: Stage) -> None:
    """Two workers, two names; one is killed with a message in hand; SIGTERM ends both."""
    stage = embedded_stage
    log = stage.folder / "fleet.log"
    with Child(
        ["convotic_celery.cli", "worker", "--processes", "2", "--loglevel", "INFO"],
        environment=os.environ | stage.environment,
        log=log,
        cwd=stage.folder,
    ) as fleet:

        def count_ready() -> int:
            assert fleet.is_running, log.read_text()
            return log.read_text().count(" ready.")

        wait_until(lambda: count_ready() >= 2)
        for number in range(4):
            stage.publish_json({"id": number, "slow": 1})
        wait_until(lambda: len(stage.read_runs()) >= 2)
        workers = psutil.Process(fleet._process.pid).children()
        os.kill(workers[0].pid, signal.SIGKILL)

        wait_until(lambda: count_ready() >= 3)
        wait_until(lambda: {run["data"]["id"] for run in stage.read_runs("end")} == {0, 1, 2, 3})
        # Two names, both there: the new process has that of the killed one.
        answers = wait_for_answers(stage, "pause", QUEUE, workers={"celery1", "celery2"})
        convotic(stage, "resume", QUEUE, "--timeout", "1")
        fleet.terminate()

        assert fleet.wait(PATIENCE) == 0

    assert answers.keys() == {"celery1", "celery2"}
    assert "was killed by signal 9" in log.read_text()


def test_a_wrong_setting_ends_the_command(embedded_stage: Stage) -> None:
    """It says what is wrong before it starts a worker."""
    stage = embedded_stage
    stage.environment["CONVOTIC_LOG_LEVEL"] = "loud"

    done = convotic(stage, "worker", "--processes", "2")

    assert done.returncode == 2
    assert "CONVOTIC_LOG_LEVEL" in done.stderr
