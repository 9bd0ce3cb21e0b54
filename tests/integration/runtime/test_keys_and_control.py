"""What a handler can ask for, with a real worker: keys, deadlines, rates, hooks, lifespans."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE, wait_until

MODULE = '''
"""Handlers that ask for everything there is."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

from convotic_celery import ConvoticModule, DeadLettered, WorkerMessage, WorkerMiddleware

RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(what: str, **fields: object) -> None:
    line = {"what": what, "at": time.time(), "pid": os.getpid(), **fields}
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\\n")


class Pool:
    name = "pool"


@asynccontextmanager
async def live():
    record("open")
    yield Pool()
    record("close")


class Telling(WorkerMiddleware):
    def before(self, message, ctx):
        record("before", id=message.id)

    def after(self, message, ctx):
        record("after", id=message.id)

    def on_error(self, message, ctx, error):
        record("on_error", error=type(error).__name__)


module = ConvoticModule(name="probe", version="1.0.0", lifespan=live, middleware=[Telling()])


@module.worker("probe.once", deduplicate="data.id", concurrency=4, ack_deadline=10)
async def run_once(message: WorkerMessage, ctx) -> None:
    record("once", data=message.data, attempt=ctx.attempt, fence=ctx.fencing_token)
    await asyncio.sleep(message.data.get("seconds", 0))
    record("once-end", data=message.data)


@module.worker("probe.alone", concurrency_key="data.tenant", concurrency=4)
def run_alone(message: WorkerMessage, ctx) -> None:
    record("alone", pool=ctx.resource(Pool).name)
    time.sleep(0.3)
    record("alone-end")


@module.worker("probe.extended", ack_deadline=3, deadline_grace=1)
async def extend(message: WorkerMessage, ctx) -> None:
    record("extended", attempt=ctx.attempt)
    try:
        ctx.extend_ack_deadline(30)
    except Exception as error:
        record("refused", error=str(error))
        return
    await asyncio.sleep(8)
    record("extended-end", left=ctx.time_left)


@module.worker("probe.long", ack_deadline=1, deadline_grace=1, max_lease_duration=30)
def take_long(message: WorkerMessage, ctx) -> None:
    record("long", attempt=ctx.attempt)
    time.sleep(4)
    record("long-end", left=ctx.time_left)


@module.worker("probe.limited", rate_limit="1/s", concurrency=5)
async def run_limited(message: WorkerMessage, ctx) -> None:
    record("limited")


def tell(dead: DeadLettered, ctx) -> None:
    record("told", reason=dead.reason, attempts=dead.attempts, error=str(dead.error))


@module.worker("probe.hopeless", retry_on=ConnectionError, on_dead_letter=tell)
def fail(message: WorkerMessage, ctx) -> None:
    raise ValueError("hopeless")


async def first(run, ctx):
    record("first", run=run.id)
    return run.input


async def second(run, ctx):
    record("second", run=run.id)
    if len([line for line in RECORD.read_text().splitlines() if '"second"' in line]) == 1:
        await asyncio.sleep(60)
    record("second-end", seen=run.results["first"])


module.workflow("two-steps", steps=[first, second], ack_deadline=10)


@module.worker("probe.start")
async def start(message: WorkerMessage, ctx) -> None:
    await ctx.workflows.start("two-steps", message.data, run_id=f"run-{message.id}")
'''


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path) -> Stage:
    stage = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)
    return stage


def test_duplicates_are_skipped(stage: Stage) -> None:
    """At once or one after the other: of six messages with one key, one is run."""
    with stage.worker():
        for _ in range(5):
            stage.publish_json({"id": 1, "seconds": 0.5}, topic="probe.once")
        wait_until(lambda: stage.read_runs("once-end"))
        stage.publish_json({"id": 1}, topic="probe.once")
        stage.publish_json({"id": 2}, topic="probe.once")
        wait_until(lambda: len(stage.read_runs("once-end")) == 2)

    assert [run["data"]["id"] for run in stage.read_runs("once")] == [1, 2]


def test_a_killed_worker_s_key_is_free_again(stage: Stage) -> None:
    """kill -9 in the middle: the message is run again, with a newer fencing token."""
    with stage.worker() as worker:
        stage.publish_json({"id": 1, "seconds": 60}, topic="probe.once")
        (first,) = wait_until(lambda: stage.read_runs("once"))
        os.kill(worker.child._process.pid, signal.SIGKILL)
        worker.child.wait(PATIENCE)
    with stage.worker():
        runs = wait_until(lambda: stage.read_runs("once")[1:])

    assert runs[0]["fence"] > first["fence"]
    assert runs[0]["attempt"] == 1


def test_a_concurrency_key_runs_one_at_a_time(stage: Stage) -> None:
    """Plain handlers in four threads; their module's lifespan is there, and left at the end."""
    with stage.worker():
        for _ in range(4):
            stage.publish_json({"tenant": "a"}, topic="probe.alone")
        wait_until(lambda: len(stage.read_runs("alone-end")) == 4)

    begins = [run["at"] for run in stage.read_runs("alone")]
    ends = [run["at"] for run in stage.read_runs("alone-end")]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    assert {run["pool"] for run in stage.read_runs("alone")} == {"pool"}
    assert len(stage.read_runs("open")) == len(stage.read_runs("close")) == 1
    assert len(stage.read_runs("after")) == 4


def test_an_extended_deadline_keeps_the_lease(stage: Stage) -> None:
    """A run of 8 s with an ack deadline of 3 s: one delivery, one run, to its end."""
    with stage.worker():
        stage.publish_json({}, topic="probe.extended")
        wait_until(lambda: stage.read_runs("extended-end"))

    assert len(stage.read_runs("extended")) == 1


def test_prefork_refuses_to_extend(stage: Stage) -> None:
    """With what to do instead, which helps; lifespans are each child's own."""
    with stage.worker("-P", "prefork", "-c", "1"):
        stage.publish_json({}, topic="probe.extended")
        (run,) = wait_until(lambda: stage.read_runs("refused"))
        stage.publish_json({"tenant": "a"}, topic="probe.alone")
        wait_until(lambda: stage.read_runs("alone-end"))
        stage.publish_json({}, topic="probe.long")
        wait_until(lambda: stage.read_runs("long-end"))

    assert len(stage.read_runs("long")) == 1
    assert "max_lease_duration" in run["error"]
    (opened,), (closed,) = stage.read_runs("open"), stage.read_runs("close")
    assert opened["pid"] == closed["pid"]


@pytest.mark.crash(
    8, "the worker, in a step of a workflow", lost="nothing", repeated="that step, no other"
)
def test_a_workflow_goes_on_after_a_crash(stage: Stage) -> None:
    """kill -9 in the second step: only that one is run again."""
    with stage.worker() as worker:
        stage.publish_json({"order": 7}, topic="probe.start")
        wait_until(lambda: stage.read_runs("second"))
        os.kill(worker.child._process.pid, signal.SIGKILL)
        worker.child.wait(PATIENCE)
    with stage.worker():
        (end,) = wait_until(lambda: stage.read_runs("second-end"))

    assert end["seen"] == {"order": 7}
    assert len(stage.read_runs("first")) == 1


def test_a_rate_limit_spaces_the_runs(stage: Stage) -> None:
    """One a second, although five could run at once."""
    with stage.worker():
        for _ in range(5):
            stage.publish_json({}, topic="probe.limited")
        wait_until(lambda: len(stage.read_runs("limited")) == 5)

    times = [run["at"] for run in stage.read_runs("limited")]
    assert times[-1] - times[0] > 2  # of four


def test_what_is_not_worth_a_retry_is_dead_lettered_and_told(stage: Stage) -> None:
    """Reason rejected, after one run; the hook and the middleware see the error."""
    with stage.worker():
        stage.publish_json({}, topic="probe.hopeless")
        dead = stage.pull_dead_letter(queue="probe.hopeless.probe")

    assert dead.attributes["convotic-dead-letter-reason"] == "rejected"
    assert dead.attributes["convotic-dead-letter-error-type"] == "ValueError"
    (told,) = stage.read_runs("told")
    assert (told["reason"], told["attempts"], told["error"]) == ("rejected", 1, "hopeless")
    assert stage.read_runs("on_error")[0]["error"] == "ValueError"
