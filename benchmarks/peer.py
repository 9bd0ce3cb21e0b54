"""Plain Celery on another broker, measured like our worker; see ``peers/``.

It runs in an environment of its own (``.bench-peers/``, created on first use): redis and kombu's
gcpubsub need packages that ours does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import LineCounter, rate_of_middle, read_record
from benchmarks.servers import MissingPeer
from tests.support.waiting import wait_until

__all__ = ["POOLS", "CeleryPeer", "peers_python"]

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".bench-peers"
ORDERS = ROOT / "modules" / "convotic_order_processor" / "data" / "cdnow_orders.jsonl"

#: Pool -> its size; with each, a worker prefetches 100 messages in all.
POOLS = {"solo": 1, "threads": 4, "prefork": 2}
_PREFETCH = 100
#: Processes of dramatiq's worker, and threads in each.
_DRAMATIQ_SIZE = ("2", "4")
#: A run takes about ten seconds; a worker that hangs (gcpubsub's prefork sometimes does: gRPC does
#: not survive a fork) costs the bench no more than this.
_RUN_SECONDS = 90


def peers_python() -> Path:
    """Return the Python of the peers' environment; creates it if it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    celery = f"celery[redis,gcpubsub]=={version('celery')}"
    wanted = [celery, "dramatiq[redis]>=2,<3", "hiredis>=3,<4"]
    complete = ENVIRONMENT / "complete"
    if not complete.exists() or complete.read_text() != " ".join(wanted):
        try:
            subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
        except subprocess.CalledProcessError as error:
            raise MissingPeer(f"pip install {' '.join(wanted)}") from error
        complete.write_text(" ".join(wanted))
    return python


@dataclass
class CeleryPeer:
    """A broker, and Celery's workers and producers on it."""

    url: str
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    #: A new one for each measurement, so that none sees another's leftovers.
    queue: str = "bench"

    def publish(self, count: int) -> float:
        """Publish tasks with ``apply_async``; return how many per second."""
        self._record()
        return self._publish(count)

    def _publish(self, count: int) -> float:
        return float(self._run("publish", str(count)))

    def throughput(self, pool: str, count: int, *, events: bool = False) -> float:
        """Messages per second on a backlog, over the middle 80 %."""
        record = self._record()
        self._publish(count)
        with self.worker(pool, record, block=100, events=events) as process:
            wait_for_lines(process, record, count - 100 * POOLS[pool])
        return rate_of_middle([arrived for _, arrived in read_record(record)])

    def order_throughput(self, pool: str, store_url: str) -> float:
        """Orders a second of the sample's work as a Celery task, on a backlog, an empty store."""
        record = self._record()
        self.extra["BENCH_STORE"] = store_url
        count = int(self._run("orders", "100000", str(ORDERS)))
        with self.worker(pool, record, block=100, app="orders") as process:
            wait_for_lines(process, record, count - 100 * POOLS[pool])
        return rate_of_middle([arrived for _, arrived in read_record(record)])

    def latency(self, pool: str, count: int) -> list[float]:
        """Seconds from publish to task, one message at a time."""
        record = self._record()
        with self.worker(pool, record, block=1):
            self._run("publish", str(count + 10), str(record))
        return [(arrived - sent) / 1e9 for sent, arrived in read_record(record)[10:]]

    def start_seconds(self) -> float:
        """Seconds from the start of a worker to its first task, which is already waiting."""
        record = self._record()
        self._publish(1)
        began = time.monotonic()
        with self.worker("solo", record, block=1) as process:
            wait_for_lines(process, record, 1)
            return time.monotonic() - began

    def dramatiq_throughput(self, count: int) -> float:
        """Messages per second of dramatiq's worker on a backlog in the same broker."""
        record = self._record()
        self._run("dramatiq_app", str(count))
        processes, threads = _DRAMATIQ_SIZE
        options = ("--processes", processes, "--threads", threads)
        arguments = ("dramatiq", "benchmarks.peers.dramatiq_app", *options)
        with self._running(arguments, {"BENCH_RECORD": str(record)}) as process:
            wait_for_lines(process, record, count - 100 * int(processes))
        return rate_of_middle([arrived for _, arrived in read_record(record)])

    @contextlib.contextmanager
    def worker(
        self,
        pool: str,
        record: Path,
        *,
        block: int,
        events: bool = False,
        app: str = "celery_app",
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker."""
        size = POOLS[pool]
        environment = {
            "BENCH_RECORD": str(record),
            "BENCH_BLOCK": str(block),
            "BENCH_MULTIPLIER": str(_PREFETCH // size),
            "BENCH_EVENTS": "1" if events else "",
        }
        command = ("celery", "-A", f"benchmarks.peers.{app}", "worker")
        options = ("--loglevel", "WARNING", "-P", pool, "-c", str(size))
        with self._running((*command, *options), environment) as process:
            yield process

    @contextlib.contextmanager
    def _running(
        self, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [peers_python(), "-m", *arguments],
                env=self._environment() | environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _run(self, *arguments: str) -> str:
        command = [str(peers_python()), "-m", "benchmarks.peers." + arguments[0], *arguments[1:]]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
        if done.returncode:
            raise MissingPeer(f"{' '.join(command[1:])}: {done.stderr[-300:]}")
        return done.stdout.splitlines()[-1]

    def _environment(self) -> dict[str, str]:
        ours = {"BENCH_BROKER": self.url, "BENCH_QUEUE": self.queue}
        return os.environ | self.extra | ours

    def _record(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.queue = f"bench-{time.monotonic_ns()}"
        return self.folder / f"record-{time.monotonic_ns()}"


def wait_for_lines(process: subprocess.Popen[bytes], record: Path, count: int) -> None:
    noted = LineCounter(record)
    wait_until(
        lambda: noted() >= count or process.poll() is not None,
        timeout=_RUN_SECONDS,
        what=f"{count} messages",
    )
    if process.poll() is not None:
        raise MissingPeer("its worker ended; see worker.log")
