"""`convotic dev`: one terminal, a reload on save, and nothing left behind."""

from __future__ import annotations

import json
import signal
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from convotic_celery.embedded import store
from convotic_emulator import daemon
from tests.acceptance.commands import convotic
from tests.acceptance.dev import Dev
from tests.conftest import find_processes
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

MODULE = """
import asyncio

from convotic_celery import ConvoticContext, ConvoticModule, RouteRequest, WorkerMessage

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("custom.orders.new")
async def process_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
    print("began VERSION", flush=True)
    await asyncio.sleep(message.data.get("seconds", 0))
    print("finished VERSION", flush=True)
"""

ROUTE = """

@module.route("GET", "/version")
async def get_version(request: RouteRequest, ctx: ConvoticContext) -> dict[str, object]:
    return {"status": 200, "body": {"version": "VERSION"}}
"""

SCHEDULE = """

@module.schedule(every=1)
async def tick(message: WorkerMessage, ctx: ConvoticContext) -> None:
    print("ticked VERSION", flush=True)
"""


@pytest.fixture
def source(embedded_stage: Stage) -> Path:
    """The stage's module, with our text."""
    path = embedded_stage.folder / "modules" / "shop.py"
    write(path, "one")
    return path


def write(path: Path, version: str, text: str = MODULE) -> None:
    """Save the module."""
    path.write_text(text.replace("VERSION", version))


def test_a_save_is_loaded_and_running_handlers_finish(embedded_stage: Stage, source: Path) -> None:
    """The new code takes what is published after; the old code ends what it has begun."""
    stage = embedded_stage
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("✓ ready")
        assert convotic(stage, "publish", "custom.orders.new", '{"seconds": 3}').returncode == 0
        dev.wait_for("began one")
        write(source, "two")
        dev.wait_for("✓ reloaded modules/shop.py")
        convotic(stage, "publish", "custom.orders.new", "{}")
        dev.wait_for("finished two")
        dev.wait_for("finished one")

    assert dev.process.returncode == 0
    assert "worker │ began one" in dev.text
    assert dev.text.count("finished one") == 1
    # A server that has given its lock back may be on its last lines.
    wait_until(lambda: not find_processes(str(stage.data_dir)), what="the end of the servers")
    assert daemon.status(stage.data_dir) is None
    assert store.status(stage.data_dir) is None


def test_an_error_in_a_save_is_shown_and_the_old_code_goes_on(
    embedded_stage: Stage, source: Path
) -> None:
    """With file, line and what to do; a save that mends it is loaded."""
    stage = embedded_stage
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("✓ ready")
        write(source, "two", "import not_there\n" + MODULE)
        dev.wait_for("✗ modules/shop.py:1: ModuleNotFoundError: No module named 'not_there'")
        dev.wait_for("the old processes go on")
        dev.wait_for("│     import not_there")
        stage.publish_json({})
        dev.wait_for("finished one")
        write(source, "three")
        dev.wait_for("✓ reloaded modules/shop.py")
        convotic(stage, "publish", "custom.orders.new", "{}")
        dev.wait_for("finished three")


def test_it_waits_for_a_first_module_that_loads(embedded_stage: Stage, source: Path) -> None:
    """What is broken at the start is no reason to end."""
    stage = embedded_stage
    write(source, "one", "module = broken\n")
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("nothing runs; save a file to try again")
        dev.wait_for("modules/shop.py:1: NameError")
        write(source, "two")
        dev.wait_for("✓ ready")
        dev.wait_for("custom.orders.new.shop  modules/shop.py:")


def test_routes_and_schedules_come_and_go_with_the_code(
    embedded_stage: Stage, source: Path
) -> None:
    """They run once a module has them, reload with it, and end with it."""
    stage = embedded_stage
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("✓ ready")
        assert "routes " not in dev.text
        write(source, "two", MODULE + ROUTE + SCHEDULE)
        dev.wait_for("✓ reloaded")
        dev.wait_for("ticked two")
        dev.wait_for("/docs")
        address = next(line for line in dev.lines if "/docs" in line).split()[-1]
        url = address.removesuffix("/docs") + "/version"
        assert read(url) == {"version": "two"}
        write(source, "three", MODULE + ROUTE)
        dev.wait_for("✓ reloaded", times=2)
        # It is not waited for long that the old process takes no more requests.
        wait_until(lambda: read(url) == {"version": "three"}, what="the new code's answer")
        wait_until(lambda: not find_programs(dev, "beat"), what="the end of beat")


@pytest.mark.usefixtures("source")
def test_a_worker_that_dies_is_started_again(embedded_stage: Stage) -> None:
    """And so is everything, when what has forked it dies."""
    stage = embedded_stage
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("✓ ready")
        (worker,) = find_programs(dev, "worker")
        worker.send_signal(signal.SIGKILL)
        dev.wait_for("the worker was killed by signal 9; starting it again in 1 s")
        dev.wait_for("✓ reloaded what had ended")
        convotic(stage, "publish", "custom.orders.new", "{}")
        dev.wait_for("finished one")

        (nursery,) = (
            child
            for child in psutil.Process(dev.process.pid).children()
            if "convotic_celery.cli.dev.child" in child.cmdline()
        )
        nursery.kill()
        dev.wait_for("✓ reloaded what had ended", times=2)
        convotic(stage, "publish", "custom.orders.new", "{}")
        dev.wait_for("finished one", times=2)


@pytest.mark.usefixtures("source")
def test_nothing_outlives_a_killed_dev(embedded_stage: Stage) -> None:
    """Its children notice; the servers end for want of a client."""
    stage = embedded_stage
    environment = stage.environment | {"CONVOTIC_EMULATOR_IDLE_TIMEOUT": "5"}
    with Dev(stage.folder, **environment) as dev:
        dev.wait_for("✓ ready")
        children = psutil.Process(dev.process.pid).children(recursive=True)
        dev.process.kill()
        dev.process.wait()

        wait_until(lambda: not any(map(is_alive, children)))
        wait_until(lambda: not find_processes(str(stage.data_dir)))


@pytest.mark.usefixtures("source")
def test_one_dev_a_folder(embedded_stage: Stage) -> None:
    """Two would run each schedule twice."""
    stage = embedded_stage
    with Dev(stage.folder, **stage.environment) as dev:
        dev.wait_for("✓ ready")
        done = convotic(stage, "dev")

    assert done.returncode == 2
    assert "`convotic dev` runs already for" in done.stderr


def read(url: str) -> object:
    """Return the JSON at a URL."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:  # our own server
        return json.load(response)


def find_programs(dev: Dev, name: str = "") -> list[psutil.Process]:
    """Return the programs that run, or those of one name; not the nursery that has forked them."""
    found = []
    for child in psutil.Process(dev.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if child.name().startswith(f"dev-{name}"):
                found.append(child)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
