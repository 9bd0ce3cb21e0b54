"""Our worker under measurement, on the emulator of a folder or on another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import redis

from benchmarks.figures import LineCounter, has_lines, rate_of_middle, read_record
from benchmarks.handler import SUBSCRIPTION, TOPIC
from benchmarks.raw import RawClient
from convotic_celery import embedded
from convotic_celery.cli.demo.child import Child
from convotic_celery.configuration import LOCAL_BROKER_URL
from convotic_celery.settings import Settings
from convotic_emulator import daemon
from convotic_order_processor.orders import load_orders
from tests.support.waiting import wait_until

__all__ = ["Bench"]

ROOT = Path(__file__).parents[1]
#: All streams of a worker of 300 handlers are open within this.
_OPENING_SECONDS = 10.0
PROJECT = LOCAL_BROKER_URL.removeprefix("pubsub://")


class Bench:
    """One run: an emulator, the store of a temporary folder, and the measurements on them.

    The emulator is the folder's unless ``address`` names another; so is the store.
    """

    def __init__(
        self,
        folder: Path,
        messages: int,
        latencies: int,
        address: str | None = None,
        store_url: str | None = None,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._messages = messages
        self._latencies = latencies
        self._environment = {"CONVOTIC_DATA_DIR": str(folder)}
        if address is not None:
            self._environment["PUBSUB_EMULATOR_HOST"] = address
        if store_url is not None:
            self._environment["CONVOTIC_REDIS_URL"] = store_url
        self._settings = Settings(data_dir=folder)
        self._named_address = address
        self._log = folder / "worker.log"

    @property
    def _address(self) -> str:
        """The emulator's current address: it ends when a peer's turn leaves it without clients."""
        return self._named_address or embedded.broker_address(self._settings)

    def raw_client(self, topic: str, subscription: str) -> RawClient:
        return RawClient(self._address, PROJECT, topic, subscription)

    @contextmanager
    def _empty(self) -> Iterator[RawClient]:
        """Yield a client of the handler's resources, without leftovers of an earlier worker."""
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            client.purge()
            yield client

    def worker(self, record: Path, *, block: int, events: bool, **extra: object) -> Child:
        environment = os.environ | self._environment
        environment |= {f"CONVOTIC_TEST_BENCH_{name.upper()}": str(extra[name]) for name in extra}
        environment |= {
            "CONVOTIC_MODULES": "benchmarks.handler",
            "CONVOTIC_TEST_BENCH_RECORD": str(record),
            "CONVOTIC_TEST_BENCH_BLOCK": str(block),
            "CONVOTIC_TEST_BENCH_EVENTS": "1" if events else "",
        }
        arguments = ["celery", "-A", "benchmarks.app", "worker", "--loglevel", "WARNING"]
        return Child(arguments, environment=environment, log=self._log, cwd=ROOT)

    def declare(self) -> None:
        """Start a worker once, which creates the handler's resources."""
        with self.worker(Path(os.devnull), block=1, events=False) as worker:
            self._wait(worker, self.is_declared, "the worker's subscription")

    def is_declared(self) -> bool:
        """Return whether the handler's resources exist."""
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            return client.exists()

    def throughput(
        self,
        *,
        events: bool = False,
        messages: int | None = None,
        workers: int = 1,
        **extra: object,
    ) -> float:
        """Messages per second of our workers on a backlog."""
        count = messages or self._messages
        with self._empty() as client:
            client.publish(count)
        return self._drain(count, events=events, workers=workers, **extra)

    def order_throughput(self, handler: str = "order", concurrency: int = 100) -> float:
        """Orders a second of the sample's handler, whole, on a backlog and an empty store."""
        orders = [json.dumps(order).encode() for order in load_orders()]
        store = redis.Redis.from_url(embedded.store_url(self._settings))
        store.flushall()
        store.close()
        with self._empty() as client:
            client.publish_all(orders)
        return self._drain(len(orders), handler=handler, concurrency=concurrency)

    def _drain(
        self, count: int, *, events: bool = False, workers: int = 1, **extra: object
    ) -> float:
        """Let workers process a backlog; return messages per second over its middle."""
        records = [self._folder / f"record-{time.monotonic_ns()}-{n}" for n in range(workers)]
        with ExitStack() as stack:
            running = [
                stack.enter_context(self.worker(record, block=100, events=events, **extra))
                for record in records
            ]
            # Each worker may keep less than a block to itself.
            whole = count // 100 * 100 - 100 * (workers - 1)
            counters = [LineCounter(record) for record in records]
            self._wait(running[0], lambda: sum(count() for count in counters) >= whole, "all")
        pairs = [pair for record in records if record.exists() for pair in read_record(record)]
        return rate_of_middle([arrived for _, arrived in pairs])

    def second_worker(
        self, *, concurrency: int, wait: float, seconds: float = 3.0, step: float = 0.5
    ) -> list[float]:
        """Share of a second worker that joins a backlog, in each ``step`` seconds since it came."""
        each = concurrency / wait
        records = [self._folder / f"record-{time.monotonic_ns()}-{n}" for n in range(2)]
        options: dict[str, Any] = {"concurrency": concurrency, "wait": wait}
        with self._empty() as client, ExitStack() as stack:
            # Enough for both, and for the first one until the second has started.
            client.publish(int(each * (3 * seconds + 8)))
            first, joining = (partial(self.worker, r, block=10, events=False) for r in records)
            one = stack.enter_context(first(**options))
            self._wait(one, partial(has_lines, records[0], int(2 * each)), "two seconds' messages")
            two = stack.enter_context(joining(**options))
            self._wait(two, partial(has_lines, records[1], 1), "the second worker's first")
            Event().wait(seconds + 0.2)
        arrived = [[at for _, at in read_record(record)] for record in records]
        began = min(arrived[1])
        shares = []
        for number in range(int(seconds / step)):
            since = began + number * step * 1e9
            counts = [sum(since <= at < since + step * 1e9 for at in times) for times in arrived]
            shares.append(counts[1] / max(1, sum(counts)))
        return shares

    def backlog(self, count: int) -> dict[str, float]:
        """Rate and memory (MB) in the first and in the last tenth of a large backlog."""
        record = self._folder / f"record-{time.monotonic_ns()}"
        with self._empty() as client:
            for _ in range(count // 10_000):
                client.publish(10_000)
        emulator = psutil.Process((daemon.status(self._folder) or {})["pid"])
        figures: dict[str, float] = {"emulator full": emulator.memory_info().rss / 1e6}
        noted = LineCounter(record)
        with self.worker(record, block=100, events=False) as worker:
            for name, share in (("first", 0.1), ("last", 0.98)):
                lines = int(count * share)
                self._wait(worker, partial(has_reached, noted, lines), name, timeout=3600)
                process = psutil.Process(worker._process.pid)
                figures[f"worker {name}"] = process.memory_info().rss / 1e6
                figures[f"emulator {name}"] = emulator.memory_info().rss / 1e6
        arrivals = [arrived for _, arrived in read_record(record)]
        tenth = len(arrivals) // 10
        figures["rate first"] = rate_of_middle(arrivals[:tenth])
        figures["rate last"] = rate_of_middle(arrivals[-tenth:])
        return figures

    def latency(self, **extra: object) -> list[float]:
        """Seconds from publish to handler, one message at a time."""
        record = self._folder / f"record-{time.monotonic_ns()}"
        with (
            self._empty() as client,
            self.worker(record, block=1, events=False, **extra) as worker,
        ):
            client.publish_one()
            self._wait(worker, partial(has_lines, record, 1), "the first message")
            record.unlink()
            self._publish(str(self._latencies + 10), str(record))
        pairs = read_record(record)[10:]  # the first ones connect and import
        return [(arrived - sent) / 1e9 for sent, arrived in pairs]

    def start_seconds(self) -> float:
        """Seconds from the start of a worker to its first message, which is already waiting."""
        record = self._folder / f"record-{time.monotonic_ns()}"
        with self._empty() as client:
            client.publish_one()
        began = time.monotonic()
        with self.worker(record, block=1, events=False) as worker:
            self._wait(worker, partial(has_lines, record, 1), "one message")
            return time.monotonic() - began

    def many_handlers(self, others: int, idle_seconds: float = 20.0) -> tuple[float, float]:
        """Start a worker of many handlers; seconds until it works, share of a core when idle.

        The kernel counts in ticks of 10 ms: over 5 s, four ticks more were a third of the figure.
        """
        record = self._folder / f"record-{time.monotonic_ns()}"
        with self.worker(record, block=1, events=False, others=others) as worker:
            self._wait(worker, lambda: self._is_served(record), "the first start")
        record.unlink()
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            client.publish_one()
        began = time.monotonic()
        with self.worker(record, block=1, events=False, others=others) as worker:
            self._wait(worker, partial(has_lines, record, 1), "one message")
            start = time.monotonic() - began
            process = psutil.Process(worker._process.pid)
            Event().wait(_OPENING_SECONDS)
            before = sum(process.cpu_times()[:2])
            Event().wait(idle_seconds)
            return start, (sum(process.cpu_times()[:2]) - before) / idle_seconds

    def _is_served(self, record: Path) -> bool:
        if not self.is_declared():
            return False
        with closing(self.raw_client(TOPIC, SUBSCRIPTION)) as client:
            client.publish_one()
        return has_lines(record, 1)

    def publishing(self, count: int) -> dict[str, float]:
        """Rate of ``publish_many``, and medians of single publishes."""
        figures: dict[str, float] = json.loads(self._publish(str(count)).splitlines()[-1])
        return figures

    def _publish(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "benchmarks.publishing", self._address, *arguments]
        environment = os.environ | self._environment | {"CONVOTIC_MODULES": "benchmarks.handler"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def in_memory_throughput(self) -> float:
        command = [sys.executable, "-m", "benchmarks.in_memory", str(self._messages)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])

    def _wait(
        self, worker: Child, condition: Callable[[], bool], what: str, timeout: float = 180
    ) -> None:
        def is_true() -> bool:
            assert worker.is_running, worker.last_lines()
            return condition()

        wait_until(is_true, timeout=timeout, what=what)


def has_reached(counter: LineCounter, count: int) -> bool:
    return counter() >= count
