"""``make bench``: measure, print, keep. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.figures import Sample, percentile, rate_of_middle
from benchmarks.handler import SUBSCRIPTION, TOPIC
from benchmarks.raw import RawClient
from convotic_celery import embedded
from convotic_celery.app import LOCAL_BROKER_URL
from convotic_celery.cli.demo.child import Child
from convotic_celery.embedded import store
from convotic_celery.settings import Settings
from convotic_emulator import daemon
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]
PROJECT = LOCAL_BROKER_URL.removeprefix("pubsub://")


class Bench:
    """One run: the emulator and the store of a temp folder, and what is measured on them."""

    def __init__(self, folder: Path, messages: int, latencies: int) -> None:
        self._folder = folder
        self._messages = messages
        self._latencies = latencies
        self._settings = Settings(data_dir=folder)
        self._address = embedded.broker_address(self._settings)
        self._log = folder / "worker.log"

    def raw_client(self, topic: str, subscription: str) -> RawClient:
        return RawClient(self._address, PROJECT, topic, subscription)

    def worker(self, record: Path, *, block: int, events: bool) -> Child:
        environment = os.environ | {
            "CONVOTIC_DATA_DIR": str(self._folder),
            "CONVOTIC_MODULES": "benchmarks.handler",
            "CONVOTIC_TEST_BENCH_RECORD": str(record),
            "CONVOTIC_TEST_BENCH_BLOCK": str(block),
            "CONVOTIC_TEST_BENCH_EVENTS": "1" if events else "",
        }
        arguments = ["celery", "-A", "benchmarks.app", "worker", "--loglevel", "WARNING"]
        return Child(arguments, environment=environment, log=self._log, cwd=ROOT)

    def declare(self) -> None:
        """Have a worker create the handler's resources."""
        with self.worker(Path(os.devnull), block=1, events=False) as worker:
            self._wait(worker, self._probe, "the worker's subscription")

    def _probe(self) -> bool:
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            return client.exists()

    def throughput(self, *, events: bool) -> float:
        """Messages a second of our worker on a backlog."""
        record = self._folder / f"record-{time.monotonic_ns()}"
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            client.publish(self._messages)
        with self.worker(record, block=100, events=events) as worker:
            self._wait(worker, partial(has_lines, record, self._messages // 100 * 100), "all")
        return rate_of_middle([arrived for _, arrived in read_record(record)])

    def latency(self) -> list[float]:
        """Seconds from publish to handler, one message at a time."""
        record = self._folder / f"record-{time.monotonic_ns()}"
        with (
            closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client,
            self.worker(record, block=1, events=False) as worker,
        ):
            for number in range(self._latencies + 10):
                client.publish_one()
                self._wait(worker, partial(has_lines, record, number + 1), "one message")
        pairs = read_record(record)[10:]  # the first ones connect and import
        return [(arrived - sent) / 1e9 for sent, arrived in pairs]

    def raw_throughput(self) -> float:
        with closing(self.raw_client("bench.raw", "bench.raw")) as client:
            client.create()
            client.publish(self._messages)
            return rate_of_middle(client.drain(self._messages))

    def raw_latency(self) -> list[float]:
        with closing(self.raw_client("bench.raw", "bench.raw")) as client:
            client.create()
            return client.measure_latency(self._latencies + 10)[10:]

    def in_memory_throughput(self) -> float:
        command = [sys.executable, "-m", "benchmarks.in_memory", str(self._messages)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])

    def _wait(self, worker: Child, condition: Callable[[], bool], what: str) -> None:
        def is_true() -> bool:
            assert worker.is_running, worker.last_lines()
            return condition()

        wait_until(is_true, timeout=180, what=what)


def has_lines(path: Path, count: int) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= count


def read_record(path: Path) -> list[tuple[int, int]]:
    lines = path.read_text().splitlines()
    return [(int(sent), int(arrived)) for sent, arrived in (line.split() for line in lines)]


def measure(bench: Bench, rounds: int, say: Callable[[str], None]) -> dict[str, Sample]:
    """Run all measurements, interleaved, and return them by name."""
    bench.declare()
    kinds: dict[str, Callable[[], Any]] = {
        "throughput/convotic": lambda: bench.throughput(events=False),
        "throughput/raw client": bench.raw_throughput,
        "throughput/celery, in memory": bench.in_memory_throughput,
        "throughput/convotic, events on": lambda: bench.throughput(events=True),
        "latency/convotic": bench.latency,
        "latency/raw client": bench.raw_latency,
    }
    values: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, run in kinds.items():
            say(f"round {number + 1} of {rounds}: {name}")
            outcome = run()
            if isinstance(outcome, float):
                values.setdefault(name, []).append(outcome)
                continue
            values.setdefault(f"{name}/p50", []).append(percentile(outcome, 0.5) * 1000)
            values.setdefault(f"{name}/p99", []).append(percentile(outcome, 0.99) * 1000)
    return {name: Sample(tuple(found)) for name, found in values.items()}


def print_table(samples: dict[str, Sample]) -> None:
    def line(title: str, unit: str, ours: str, other: str) -> None:
        mine, theirs = samples[ours], samples[other]
        print(
            f"{title:<34}{mine.median:>10,.4g} {unit:<5}{theirs.median:>12,.4g} {unit:<5}"
            f"{mine.median / theirs.median:>8.2f}   {mine.spread}"
        )

    print(f"\n{'':<34}{'convotic':>16}{'baseline':>18}{'ratio':>8}   spread")
    for other in ("celery, in memory", "raw client"):
        line(f"throughput, to {other}", "/s", "throughput/convotic", f"throughput/{other}")
    line(
        "throughput, events on, to off",
        "/s",
        "throughput/convotic, events on",
        "throughput/convotic",
    )
    for share in ("p50", "p99"):
        line(
            f"latency {share}, to raw client",
            "ms",
            f"latency/convotic/{share}",
            f"latency/raw client/{share}",
        )


def describe_machine() -> dict[str, Any]:
    packages = ("convotic-celery", "celery", "kombu", "grpcio", "google-cloud-pubsub")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…")
    parser.add_argument("--messages", type=int, default=5000, help="of each throughput run")
    parser.add_argument("--latencies", type=int, default=200, help="messages of each latency run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/")
    options = parser.parse_args()
    machine = describe_machine()
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        bench = Bench(folder, options.messages, options.latencies)
        samples = measure(bench, options.rounds, lambda text: print(text, file=sys.stderr))
    finally:
        daemon.stop(folder)
        store.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    print_table(samples)
    path = options.json or ROOT / "benchmarks" / "results" / f"{int(time.time())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {name: sample.values for name, sample in samples.items()}
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    print(f"\n{machine['cpus']} cpus, load {machine['load_before'][0]:.1f} before; kept in {path}")


if __name__ == "__main__":
    main()
