"""Takes workers away with SIGTERM and a grace of ten seconds, and says what became of the messages.

Three kinds of messages: those whose run fits into the grace, in a coroutine and in a thread, and
those whose first run outlasts it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from convotic_celery.cli.demo.child import Child
from tests.support.lines import read_lines
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

__all__ = ["GRACE_SECONDS", "LONG_LEASE_SECONDS", "Trial", "Verdict"]

GRACE_SECONDS = 10.0
#: Of a run that must fit: the grace less what handing back takes, and room for a slow machine.
MAX_RUN_SECONDS = 4.0
#: Of what outlasts it: the end of such a lease is nothing that a test waits for.
LONG_LEASE_SECONDS = 600

MODULE = '''
"""Handlers of the scale-in trial: each run is two lines of JSON in a file."""

import asyncio
import json
import os
import time
from pathlib import Path

from convotic_celery import ConvoticModule

module = ConvoticModule(name="trial", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(message, what):
    line = {"what": what, "at": time.time(), "id": message.data["id"], "attempt": message.attempt}
    with RECORD.open("a") as file:
        file.write(json.dumps(line | {"pid": os.getpid()}) + "\\n")


@module.worker("scalein.fits", concurrency=4, ack_deadline=60)
async def fits(message, ctx):
    record(message, "start")
    await asyncio.sleep(message.data["seconds"])
    record(message, "end")


@module.worker("scalein.plain", concurrency=2, ack_deadline=60)
def plain(message, ctx):
    record(message, "start")
    time.sleep(message.data["seconds"])
    record(message, "end")


@module.worker("scalein.outlasts", concurrency=1, ack_deadline=600)
async def outlasts(message, ctx):
    ran = RECORD.with_name(f"ran-{message.data['id']}")
    seconds = 0.1 if ran.exists() else 60
    ran.touch()
    record(message, "start")
    await asyncio.sleep(seconds)
    record(message, "end")


@module.worker("scalein.outlasts-plainly", concurrency=1, ack_deadline=600)
def outlasts_plainly(message, ctx):
    ran = RECORD.with_name(f"ran-{message.data['id']}")
    seconds = 0.1 if ran.exists() else 60
    ran.touch()
    record(message, "start")
    time.sleep(seconds)
    record(message, "end")
'''

LONG = ("scalein.outlasts", "scalein.outlasts-plainly")


@dataclass
class Verdict:
    """What became of the messages."""

    published: int = 0
    scale_ins: int = 0
    #: Workers that did not end within their grace.
    killed: int = 0
    #: Messages that no run has ended.
    lost: list[str] = field(default_factory=list)
    #: Messages that fit into the grace and began more than once.
    repeated: list[str] = field(default_factory=list)
    #: Runs that were not a first attempt.
    burnt: list[str] = field(default_factory=list)
    #: Of what outlasted the grace: handed back, and seconds from SIGTERM to its next run.
    handed_back: list[float] = field(default_factory=list)
    #: Seconds from SIGTERM to the end of a process.
    ends: list[float] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.killed or self.lost or self.repeated or self.burnt)

    def show(self) -> str:
        handed = sorted(self.handed_back)
        ends = sorted(self.ends)
        return (
            f"{self.scale_ins} scale-ins, {self.published} messages: {len(self.lost)} lost, "
            f"{len(self.repeated)} run twice although they fit, {len(self.burnt)} attempts burnt, "
            f"{self.killed} workers killed.\n"
            f"Processes ended {_spread(ends)} after SIGTERM. {len(handed)} runs outlasted the "
            f"grace; they ran elsewhere {_spread(handed)} after SIGTERM."
        )


def _spread(values: list[float]) -> str:
    if not values:
        return "(none)"
    middle = values[len(values) // 2]
    return f"{values[0]:.1f} to {values[-1]:.1f} s (median {middle:.1f} s)"


class Trial:
    """Workers under load, some of which are taken away.

    Args:
        stage: Where they run.
        workers: How many.
        long_every: The larger, the fewer messages outlast the grace.
        patience: Seconds after SIGTERM until a worker is killed.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        workers: int,
        long_every: int = 4,
        patience: float = GRACE_SECONDS,
    ) -> None:
        (stage.folder / "modules" / "trial.py").write_text(MODULE)
        stage.environment["CONVOTIC_SHUTDOWN_GRACE"] = f"{GRACE_SECONDS:g}"
        self._stage = stage
        self._size = workers
        self._long_every = long_every
        self._running: deque[tuple[Child, Path]] = deque()
        self._numbers = itertools.count(1)
        self._published: dict[str, str] = {}
        #: When each was, by process id.
        self._terminated: dict[int, float] = {}
        self._patience = patience
        self.verdict = Verdict()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Keep all slots busy while the block runs, then wait until all has ended."""
        while len(self._running) < self._size:
            self._start()
        self._wait_for_ready()
        stop = Event()
        publisher = threading.Thread(target=self._publish, args=(stop,))
        publisher.start()
        try:
            yield
        finally:
            stop.set()
            publisher.join()
        wait_until(lambda: not self._find_unfinished(), timeout=180, what="all to end")

    def scale_in(self, count: int = 1) -> None:
        """Take the oldest workers away as a platform does, and start as many others."""
        going = []
        for _ in range(count):
            child, _log = self._running.popleft()
            going.append((child, time.monotonic()))
            self._terminated[child.pid] = time.time()
            child.terminate()
        for _ in range(count):
            self._start()
        for child, began in going:
            try:
                child.wait(max(0.01, began + self._patience - time.monotonic()))
            except TimeoutError:
                self.verdict.killed += 1
            child.kill()
            self.verdict.scale_ins += 1
            self.verdict.ends.append(time.monotonic() - began)
        self._wait_for_ready()

    @property
    def has_long_runs(self) -> bool:
        """Whether runs of both handlers that outlast the grace have begun."""
        begun = {self._published.get(r["id"]) for r in self._read() if r["what"] == "start"}
        return begun.issuperset(LONG)

    def judge(self) -> Verdict:
        """Say what became of all that was published."""
        runs = self._read()
        starts: Counter[str] = Counter(r["id"] for r in runs if r["what"] == "start")
        ended = {r["id"] for r in runs if r["what"] == "end"}
        verdict = self.verdict
        verdict.published = len(self._published)
        verdict.lost = sorted(self._published.keys() - ended)
        verdict.repeated = sorted(
            name
            for name, topic in self._published.items()
            if topic not in LONG and starts[name] > 1
        )
        verdict.burnt = sorted({r["id"] for r in runs if r["attempt"] != 1})
        terminated = self._terminated
        for name, topic in self._published.items():
            times = [r for r in runs if r["id"] == name and r["what"] == "start"]
            if topic in LONG and len(times) == 2 and times[0]["pid"] in terminated:
                verdict.handed_back.append(times[1]["at"] - terminated[times[0]["pid"]])
        return verdict

    def stop(self) -> None:
        """End all workers."""
        for child, _ in self._running:
            child.terminate()
        for child, _ in self._running:
            child.stop()

    def _start(self) -> None:
        number = next(self._numbers)
        log = self._stage.folder / f"worker-{number}.log"
        name = f"w{number}@%h"
        arguments = ["celery", "-A", "convotic_celery", "worker", "-n", name, "--loglevel", "INFO"]
        environment = os.environ | self._stage.environment
        child = Child(arguments, environment=environment, log=log, cwd=self._stage.folder)
        self._running.append((child, log))

    def _wait_for_ready(self) -> None:
        for child, log in self._running:
            wait_until(
                lambda child=child, log=log: not child.is_running or " ready." in log.read_text(),  # type: ignore[misc]
                what="workers",
            )
            assert child.is_running, child.last_lines()

    def _publish(self, stop: Event) -> None:
        """Have a few more messages than slots, until it is stopped."""
        numbers = itertools.count(1)
        while not stop.wait(0.2):
            waiting = Counter(self._published[name] for name in self._find_unfinished())
            for topic, slots in (("scalein.fits", 4), ("scalein.plain", 2)):
                missing = int(1.5 * slots * self._size) - waiting[topic]
                self._send(topic, [f"{topic}-{next(numbers)}" for _ in range(missing)])
            if next(numbers) % self._long_every == 0:
                for topic in LONG:
                    if not waiting[topic]:
                        self._send(topic, [f"{topic}-{next(numbers)}"])

    def _send(self, topic: str, names: list[str]) -> None:
        if not names:
            return
        self._published.update(dict.fromkeys(names, topic))
        data = [{"id": n, "seconds": random.uniform(0.0, MAX_RUN_SECONDS)} for n in names]
        self._stage.publish_json(*data, topic=topic)

    def _find_unfinished(self) -> set[str]:
        return self._published.keys() - {r["id"] for r in self._read() if r["what"] == "end"}

    def _read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in read_lines(self._stage.folder / "record.jsonl")]
