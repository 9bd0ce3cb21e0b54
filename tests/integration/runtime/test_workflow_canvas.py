"""Workflows whose steps are Celery canvas, with real workers: killed, failing, resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convotic_celery.app import create_app
from convotic_celery.context import Delivery
from convotic_celery.settings import Settings
from convotic_pubsub.options import TransportOptions
from convotic_pubsub.session import Session
from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE, wait_until

MODULE = '''
"""Workflows of functions and Celery tasks."""

import json
import os
import time
from pathlib import Path

from celery import group, shared_task
from celery.signals import celeryd_init

from convotic_celery import ConvoticModule, WorkerMessage

module = ConvoticModule(name="probe", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


@celeryd_init.connect
def come_back_soon(conf, **_):
    """Have a killed worker's tasks delivered again after 10 s instead of 60."""
    options = {**conf.broker_transport_options, "visibility_timeout_seconds": 10}
    conf.broker_transport_options = options


def record(what: str, **fields: object) -> None:
    with RECORD.open("a") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), **fields}) + "\\n")


def is_first(what: str) -> bool:
    return RECORD.read_text().count(f'"{what}"') == 1


@shared_task(acks_late=True)
def slow(order):
    record("slow")
    if is_first("slow"):
        time.sleep(600)
    return f"slow {order}"


@shared_task(acks_late=True)
def quick(order):
    record("quick")
    return f"quick {order}"


@shared_task(acks_late=True)
def fail_once(order):
    record("failing")
    if is_first("failing"):
        raise ConnectionError(f"no bank for {order}")
    return "paid"


async def reserve(run, ctx):
    record("reserve")
    return run.input["order"]


async def ship(run, ctx):
    record("ship", seen=run.results)


both = ("both", group(slow.s(), quick.s()))
module.workflow("parallel", steps=[reserve, both, ship], ack_deadline=5)
module.workflow("failing", steps=[reserve, fail_once, ship], ack_deadline=5)
together = ("together", group(fail_once.s(), quick.s()))
module.workflow("failing-group", steps=[reserve, together, ship], ack_deadline=5)


@module.worker("probe.start")
async def start(message: WorkerMessage, ctx) -> None:
    name = message.data["workflow"]
    await ctx.workflows.start(name, message.data, run_id=name)


@module.worker("probe.resume")
async def resume(message: WorkerMessage, ctx) -> None:
    await ctx.workflows.resume(message.data["workflow"])
'''


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A folder with that module."""
    made = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "probe.py").write_text(MODULE)
    return made


@pytest.fixture
def workflows(stage: Stage) -> Iterator[Any]:
    """``ctx.workflows``, of somebody who asks from outside."""
    app = create_app(Settings(data_dir=stage.data_dir, modules=[]), set_as_current=False)
    context = app.services.sync_context(Delivery(handler="test", topic="test", message_id="test"))
    yield context.workflows
    app.store.close()
    app.close()


def count_messages(stage: Stage) -> int:
    """Return how many messages wait for an acknowledgement, in all that the workflows use."""
    session = Session(TransportOptions(project=stage.project, emulator_host=stage.address))
    try:
        names = ["celery", "probe.start.probe", "workflow.parallel.probe"]
        sizes = session.resources.backlog_sizes(names)
        assert sizes.keys() == set(names)
        return sum(size.messages for size in sizes.values())
    finally:
        session.close()


@pytest.mark.crash(
    8, "the worker, in a step of a workflow", lost="nothing", repeated="that step, no other"
)
def test_canvas_goes_on_after_a_crash(stage: Stage, workflows: Any) -> None:
    """kill -9 in one of two tasks: the state says which step; the steps before are not repeated."""
    with stage.worker() as worker:
        stage.publish_json({"workflow": "parallel", "order": 7}, topic="probe.start")
        wait_until(lambda: stage.read_runs("slow") and stage.read_runs("quick"))

        (waiting,) = workflows.list("parallel", status="running").items
        assert (waiting.id, waiting.step, waiting.step_name) == ("parallel", 1, "both")
        # What is repeated is what was not acknowledged: of the steps before, nothing.
        wait_until(lambda: count_messages(stage) == 1, what="all but slow to be acknowledged")
        os.kill(worker.child._process.pid, signal.SIGKILL)
        worker.child.wait(PATIENCE)
    with stage.worker():
        (shipped,) = wait_until(lambda: stage.read_runs("ship"), timeout=90)
        wait_until(lambda: workflows.get("parallel").status == "completed")

    assert shipped["seen"] == {"reserve": 7, "both": ["slow 7", "quick 7"]}
    assert len(stage.read_runs("reserve")) == 1
    assert len(stage.read_runs("slow")) == 2


@pytest.mark.parametrize(
    ("pool", "workflow", "paid"),
    [
        ((), "failing", {"fail_once": "paid"}),
        (("-P", "prefork", "-c", "2"), "failing-group", {"together": ["paid", "quick 7"]}),
    ],
    ids=["default", "prefork"],
)
def test_a_failed_task_fails_the_run_until_it_is_resumed(
    stage: Stage, workflows: Any, pool: tuple[str, ...], workflow: str, paid: dict[str, Any]
) -> None:
    """With the task's error; resuming starts the canvas again. Celery's plans are no warning."""
    with stage.worker(*pool) as worker:
        stage.publish_json({"workflow": workflow, "order": 7}, topic="probe.start")
        (failed,) = wait_until(lambda: workflows.list(status="failed").items)
        assert (failed.step, failed.step_name) == (1, *paid)
        assert "ConnectionError" in failed.error
        assert "no bank for 7" in failed.error

        stage.publish_json({"workflow": workflow}, topic="probe.resume")
        wait_until(lambda: workflows.get(workflow).status == "completed")

    (shipped,) = stage.read_runs("ship")
    assert shipped["seen"] == {"reserve": 7, **paid}
    assert len(stage.read_runs("failing")) == 2
    assert "DeprecationWarning" not in worker.read_log()
