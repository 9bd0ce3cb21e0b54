"""`convotic demo`: real orders, a real worker, figures read back; with and without kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import end_servers
from tests.support.waiting import PATIENCE, wait_until

#: The first 1,000 orders; counted by hand from the data set, not by the code under test.
FIRST_THOUSAND = {"published": 1000, "processed": 1000, "contacts": 325, "units": 2236}
BROKERS = ["embedded", pytest.param("google", marks=pytest.mark.google_emulator)]


@pytest.fixture(params=BROKERS)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a demo on each of the two brokers, with a temp folder of its own."""
    environment = dict(os.environ)
    if request.param == "google":
        environment["PUBSUB_EMULATOR_HOST"] = request.getfixturevalue("google_emulator")
    return environment | {"TMPDIR": tempfile.mkdtemp(prefix="convotic-tmp-", dir=tmp_path)}


def run_demo(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Run a demo to its end and return the JSON object that it prints last."""
    command = [sys.executable, "-m", "convotic_celery.cli", "demo", "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(figures, dict)
    return figures


def test_the_figures_are_those_of_the_orders(environment: dict[str, str]) -> None:
    """All orders are processed once; sums, contacts and dead letters are right; nothing is left."""
    figures = run_demo(environment, "--orders", "1000")

    assert {name: figures[name] for name in FIRST_THOUSAND} == FIRST_THOUSAND
    assert figures["total"] == 34132.24
    assert figures["dead_lettered"] == 0
    assert set(figures) == {
        *FIRST_THOUSAND,
        *("total", "dead_lettered", "seconds", "messages_per_second"),
    }
    assert list(Path(environment["TMPDIR"]).glob("convotic-demo-*")) == []


def test_four_kills_change_no_figure(environment: dict[str, str]) -> None:
    """SIGKILL to the worker four times on the way loses no order and counts none twice."""
    figures = run_demo(environment, "--orders", "1000", "--chaos")

    assert {name: figures[name] for name in FIRST_THOUSAND} == FIRST_THOUSAND
    assert figures["total"] == 34132.24
    assert figures["dead_lettered"] == 0


def start_demo(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "convotic_celery.cli", "demo", *arguments]
    return subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_using(folder: Path, word: str = "") -> list[psutil.Process]:
    """Return the processes that name ``folder``, and have ``word`` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            names = [*command, *process.environ().values()]
        except psutil.Error:
            continue
        mine = any(str(folder) in name for name in names) and process.pid != os.getpid()
        if mine and (not word or word in command):
            found.append(process)
    return found


def wait_until_nothing_uses(folder: Path) -> None:
    """Wait for the last lines of what had just begun, or had given its lock back."""
    wait_until(lambda: not processes_using(folder), what=f"the end of {processes_using(folder)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends worker, servers and folder with the demo."""
    with start_demo(tmp_path, "--chaos") as demo:
        wait_until(lambda: list(tmp_path.glob("convotic-demo-*/worker.log")))
        demo.send_signal(number)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 128 + number
    assert list(tmp_path.glob("convotic-demo-*")) == []
    wait_until_nothing_uses(tmp_path)


def test_a_killed_demo_takes_its_worker_along(tmp_path: Path) -> None:
    """Not even kill -9 of the demo leaves a worker behind."""
    with start_demo(tmp_path, "--chaos") as demo:
        wait_until(lambda: list(tmp_path.glob("convotic-demo-*/worker.log")))
        demo.kill()
        demo.communicate(timeout=PATIENCE)

    wait_until(lambda: not processes_using(tmp_path, "worker"))

    for folder in tmp_path.glob("convotic-demo-*"):
        end_servers(folder)


def test_flower_answers_while_the_demo_stays(tmp_path: Path) -> None:
    """`--flower` prints an address that answers, and keeps it until Ctrl-C; exit code 0 then."""
    with start_demo(tmp_path, "--orders", "50", "--flower") as demo:
        assert demo.stderr is not None
        address = next(
            line.split()[1] for line in demo.stderr if line.startswith("Flower: http://")
        )
        for line in demo.stderr:
            if line.startswith("Flower keeps running"):
                break
        with urllib.request.urlopen(f"{address}/api/workers", timeout=PATIENCE) as answer:
            assert answer.status == 200
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0
    wait_until_nothing_uses(tmp_path)


def test_the_dashboard_shows_the_demo_that_has_run(tmp_path: Path) -> None:
    """`--dashboard` prints an address; what ran is there until Ctrl-C; exit code 0 then."""
    with start_demo(tmp_path, "--orders", "50", "--dashboard") as demo:
        assert demo.stderr is not None
        address = next(
            line.split()[1] for line in demo.stderr if line.startswith("Dashboard: http://")
        )
        for line in demo.stderr:
            if line.startswith("Dashboard keeps running"):
                break
        # The last are in the store before their worker has counted and acknowledged them.
        wait_until(lambda: read_handler(address) == (50, 0, 0), what="all 50, and nothing left")
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0
    wait_until_nothing_uses(tmp_path)


def read_handler(address: str) -> tuple[int, int, int]:
    """Return of the one handler: runs that succeeded, messages that wait, dead letters."""
    with urllib.request.urlopen(f"{address}api/handlers", timeout=PATIENCE) as answer:
        [row] = json.load(answer)["handlers"]
    return row["outcomes"].get("succeeded", 0), row["messages"], row["dead_letters"]
