"""Lifespans of real workers: open before the first message, closed at the end, or no worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE, wait_until

MODULE = '''
"""A module with something to open."""

import asyncio
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path

from convotic_celery import ConvoticModule, WorkerMessage

RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])
BROKEN = os.environ.get("BROKEN")


def record(what: str) -> None:
    with RECORD.open("a") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid()}) + "\\n")


class Pool:
    pass


@asynccontextmanager
async def live():
    if BROKEN == "always" or (BROKEN == "once" and not RECORD.exists()):
        record("failed")
        raise ConnectionError("the database is away")
    if BROKEN == "slow":
        record("opening")
        await asyncio.Event().wait()
    record("open")
    yield Pool()
    record("close")


module = ConvoticModule(name="pool", version="1.0.0", lifespan=live)


@module.worker("pool.new")
async def use(message: WorkerMessage, ctx) -> None:
    ctx.resource(Pool)
    record("run")
'''


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A folder with that module alone."""
    made = make_stage(tmp_path, data_dir, None)
    (tmp_path / "modules" / "shop.py").unlink()
    (tmp_path / "modules" / "pool.py").write_text(MODULE)
    return made


@pytest.mark.parametrize(
    ("arguments", "processes"),
    [((), 1), (("-P", "threads", "-c", "2"), 1), (("-P", "prefork", "-c", "2"), 2)],
    ids=["default", "threads", "prefork"],
)
def test_it_is_open_before_a_message_comes(
    stage: Stage, arguments: tuple[str, ...], processes: int
) -> None:
    """Once in each process that runs handlers; closed there when the worker ends."""
    with stage.worker(*arguments) as worker:
        opened = wait_until(lambda: stage.read_runs("open")[processes - 1 :])
        assert opened
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0

    opened, closed = stage.read_runs("open"), stage.read_runs("close")
    assert len({run["pid"] for run in opened}) == len(opened) == processes
    assert sorted(run["pid"] for run in closed) == sorted(run["pid"] for run in opened)
    assert not stage.read_runs("run")


def test_one_that_fails_stops_the_worker(stage: Stage) -> None:
    """With an error that names the module and the cause; no message is taken."""
    with stage.worker(ready=False, BROKEN="always") as worker:
        assert worker.child.wait(PATIENCE) == 1

    log = worker.read_log()
    assert log.count("The lifespan of module pool failed, the worker does not start") == 1
    assert "ConnectionError: the database is away" in log
    assert "Unrecoverable" not in log
    assert " ready" not in log


def test_one_that_hangs_does_not_outlive_a_signal(stage: Stage) -> None:
    """SIGTERM ends a worker that is still opening."""
    with stage.worker(ready=False, BROKEN="slow") as worker:
        wait_until(lambda: stage.read_runs("opening"))
        worker.child.terminate()
        worker.child.wait(PATIENCE)

    assert not stage.read_runs("open")


def test_one_that_fails_in_a_prefork_child_is_tried_again(stage: Stage) -> None:
    """By the first run that needs it: the child is not replaced again and again."""
    with stage.worker("-P", "prefork", "-c", "1", BROKEN="once") as worker:
        wait_until(lambda: stage.read_runs("failed"))
        stage.publish_json(1, topic="pool.new")
        wait_until(lambda: stage.read_runs("run"))

    assert "the first run that needs it tries again" in worker.read_log()
