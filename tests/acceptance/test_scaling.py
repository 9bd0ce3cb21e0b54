"""Real workers, as many as `convotic scaling` says; and what becomes of those taken away."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from convotic_celery.cli.demo.child import Child
from tests.acceptance.commands import convotic
from tests.acceptance.test_health import Port
from tests.scale_in.trial import GRACE_SECONDS, LONG_LEASE_SECONDS, Trial
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

#: One message at a time in each worker.
MODULE = """
import asyncio
import os
import time
from pathlib import Path

from convotic_celery import ConvoticModule

module = ConvoticModule(name="scaled", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


@module.worker("scaled.slow", ack_deadline=60)
async def slow(message, ctx):
    with RECORD.open("a") as file:
        file.write(f"{message.data} {message.attempt} {os.getpid()}\\n")
    await asyncio.sleep(0.5)
"""


#: Its first run outlasts any grace, the next fits.
LONG_MODULE = """
import asyncio
import json
import os
import time
from pathlib import Path

from convotic_celery import ConvoticModule

module = ConvoticModule(name="long", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(message, what):
    line = {"what": what, "attempt": message.attempt}
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\\n")


def begin(message):
    ran = RECORD.with_name("ran")
    seconds = 0.5 if ran.exists() else 120
    ran.touch()
    record(message, "start")
    return seconds


@module.worker("long.plain", ack_deadline=600)
def plain(message, ctx):
    time.sleep(begin(message))
    record(message, "end")


@module.worker("long.awaiting", ack_deadline=600)
async def awaiting(message, ctx):
    await asyncio.sleep(begin(message))
    record(message, "end")
"""


class Cluster:
    """A scaler's loop: asks `convotic scaling` as KEDA does, and starts and ends real workers."""

    def __init__(self, stage: Stage, port: Port, most: int, running: ExitStack) -> None:
        self._stage = stage
        self._port = port
        self._most = most
        self._running = running
        self.workers: list[Child] = []
        #: The most that was needed at a time, and what was ended.
        self.peak = 0
        self.ended: list[Child] = []

    def needed(self) -> int | None:
        """Return the gauge; None while it is not known."""
        query = quote("convotic_needed_workers")
        with suppress(OSError):
            found: Any = json.loads(self._port.get(f"/api/v1/query?query={query}"))
            return int(found["data"]["result"][0]["value"][1])
        return None

    def turn(self) -> int:
        """Start what is missing, end one that is too many; return how many run."""
        needed = self.needed()
        if needed is None:
            return len(self.workers)
        self.peak = max(self.peak, needed)
        while len(self.workers) < min(needed, self._most):
            number = len(self.workers) + len(self.ended)
            log = self._stage.folder / f"scaled-{number}.log"
            worker = Child(
                [
                    *("celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO"),
                    *("-n", f"w{number}@%h"),
                ],
                environment=os.environ | self._stage.environment | {"CONVOTIC_HEALTH_PORT": "0"},
                log=log,
                cwd=self._stage.folder,
            )
            self.workers.append(self._running.enter_context(worker))
        # One that still imports what it needs has no handler of SIGTERM, and no work either.
        if len(self.workers) > needed and " ready." in self.workers[-1].last_lines(1000):
            worker = self.workers.pop()
            worker.terminate()
            self.ended.append(worker)
        return len(self.workers)


def test_workers_come_with_a_backlog_and_go_with_it(stage: Stage) -> None:
    """From none to as many as the backlog needs and back to none; each message runs once.

    On Google's emulator, as on the service, nobody counts what waits: it is looked for while no
    worker runs, and estimated from its age while all are busy.
    """
    (stage.folder / "modules" / "scaled.py").write_text(MODULE)
    stage.environment["CONVOTIC_SHUTDOWN_GRACE"] = f"{GRACE_SECONDS:g}"
    assert convotic(stage, "topology", "apply", "--yes").returncode == 0
    port = Port()
    with ExitStack() as running:
        command = ["convotic_celery.cli", "scaling", "--port", str(port.number)]
        running.enter_context(
            Child(
                [*command, "--drain-seconds", "5"],
                environment=os.environ | stage.environment,
                log=stage.folder / "scaling.log",
                cwd=stage.folder,
            )
        )
        cluster = Cluster(stage, port, 3, running)
        assert wait_until(lambda: cluster.needed() == 0, what="an idle fleet")
        stage.publish_json(*range(30), topic="scaled.slow")

        wait_until(lambda: cluster.turn() == 3, what="three workers")
        wait_until(lambda: cluster.turn() == 0, timeout=180, what="no worker")
        for worker in cluster.ended:
            assert worker.wait(PATIENCE) == 0

        runs = [line.split() for line in (stage.folder / "record.jsonl").read_text().splitlines()]
    assert sorted(int(number) for number, *_ in runs) == list(range(30))
    assert {attempt for _, attempt, _ in runs} == {"1"}
    # How many of them is the machine's affair: nothing may be left when the others have started.
    assert {int(pid) for *_, pid in runs} <= {worker.pid for worker in cluster.ended}
    # 30 runs of a second (nothing is known of them yet) in 5 s. A busy machine's runs take longer,
    # and an estimate takes a burst for what arrives all the time; nobody needs a worker that has
    # nothing to do.
    assert 3 <= cluster.peak <= 30


def test_a_scale_in_loses_and_repeats_nothing(embedded_stage: Stage) -> None:
    """The short form of `make scale-in`: what outlasts the grace is handed back, as no attempt."""
    # A slow machine may take longer to end a process.
    trial = Trial(embedded_stage, workers=2, long_every=1, patience=PATIENCE)
    try:
        with trial.load():
            wait_until(lambda: trial.has_long_runs)
            trial.scale_in(2)
        verdict = trial.judge()
    finally:
        trial.stop()

    assert verdict.holds, verdict.show()
    assert verdict.handed_back
    assert max(verdict.handed_back) < LONG_LEASE_SECONDS / 2, "a lease had to end"


@pytest.mark.parametrize(
    ("pool", "topic"),
    [
        ("default", "long.plain"),
        ("prefork", "long.plain"),
        ("threads", "long.awaiting"),
        ("solo", "long.awaiting"),
    ],
)
def test_each_pool_hands_back_what_outlasts_its_grace(
    embedded_stage: Stage, pool: str, topic: str
) -> None:
    """Before the grace is over, at once and as no attempt; a run that fits into it ends once."""
    stage = embedded_stage
    (stage.folder / "modules" / "long.py").write_text(LONG_MODULE)
    stage.environment["CONVOTIC_SHUTDOWN_GRACE"] = "5"
    arguments = ["-c", "1", "-Q", f"{topic}.long", *(["-P", pool] if pool != "default" else [])]

    with stage.worker(*arguments) as worker:
        stage.publish_json({}, topic=topic)
        wait_until(lambda: len(stage.read_runs()) == 1)
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0
    with stage.worker(*arguments) as worker:
        wait_until(lambda: len(stage.read_runs()) == 2)
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0

    assert [run["attempt"] for run in stage.read_runs()] == [1, 1]
    assert len(stage.read_runs("end")) == 1
