"""``on_dead_letter`` where no run decides: killed workers, prefork's hard limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE, wait_until

MODULE = '''
"""Handlers that end their process, and hooks that tell."""

import json
import os
import threading
from pathlib import Path

from convotic_celery import ConvoticModule, DeadLettered, WorkerMessage

module = ConvoticModule(name="probe", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(what: str, **fields: object) -> None:
    with RECORD.open("a") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), **fields}) + "\\n")


def tell(dead: DeadLettered, ctx) -> None:
    record("told", reason=dead.reason, data=dead.data.decode(), ctx=ctx.attempt)


@module.worker("probe.killing", ack_deadline=1, max_worker_losses=1, on_dead_letter=tell)
async def end_the_process(message: WorkerMessage, ctx) -> None:
    record("killing")
    os._exit(9)


@module.worker(
    "probe.stubborn", ack_deadline=1, deadline_grace=1, max_retries=0, on_dead_letter=tell
)
def ignore_the_limit(message: WorkerMessage, ctx) -> None:
    record("stubborn")
    while True:
        try:
            threading.Event().wait(60)
        except Exception:
            pass


async def fall(run, ctx) -> None:
    record("falling", run=run.id)
    os._exit(9)


module.workflow("falling", steps=[fall], ack_deadline=1, max_worker_losses=1)


@module.worker("probe.start")
async def start(message: WorkerMessage, ctx) -> None:
    await ctx.workflows.start("falling", run_id="run-1")


@module.worker("probe.look")
async def look(message: WorkerMessage, ctx) -> None:
    run = await ctx.workflows.get("run-1")
    record("looked", status=run.status, error=run.error)
'''
REASON = "convotic-dead-letter-reason"


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A folder with that module."""
    made = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)
    return made


def test_prefork_tells_it_in_another_child(stage: Stage) -> None:
    """A child that dies, and one that has to be killed at its hard limit."""
    with stage.worker("-P", "prefork", "-c", "2"):
        stage.publish_json(7, topic="probe.killing")
        stage.publish_json(8, topic="probe.stubborn")
        killed = stage.pull_dead_letter(queue="probe.killing.probe")
        stopped = stage.pull_dead_letter(queue="probe.stubborn.probe")

    told = {run["data"]: run["reason"] for run in stage.read_runs("told")}
    assert told == {"7": "worker-lost", "8": "ack-deadline-exceeded"}
    assert killed.attributes[REASON] == told["7"]
    assert stopped.attributes[REASON] == told["8"]
    assert len(stage.read_runs("killing")) == len(stage.read_runs("stubborn")) == 1


def test_the_next_worker_tells_it_for_a_killed_one(stage: Stage) -> None:
    """Here a workflow's: its run has failed, and says why. The step is not run again.

    max_worker_losses=1: the first run left no note that it began, the second did.
    """
    with stage.worker() as first:
        stage.publish_json({}, topic="probe.start")
        assert first.child.wait(PATIENCE) == 9
    with stage.worker(ready=False) as second:
        assert second.child.wait(PATIENCE) == 9
    with stage.worker():
        dead_letter = stage.pull_dead_letter(queue="workflow.falling.probe")
        stage.publish_json({}, topic="probe.look")
        (looked,) = wait_until(lambda: stage.read_runs("looked"))

    assert dead_letter.attributes[REASON] == "worker-lost"
    assert looked["status"] == "failed"
    assert "worker-lost" in looked["error"]
    assert len(stage.read_runs("falling")) == 2
