"""``make bench``: measure ours and the peers in turns; print and store figures with their targets.

See README.md.
"""

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
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPIError

from benchmarks import distance
from benchmarks.figures import Sample, percentile
from benchmarks.ours import ROOT, Bench
from benchmarks.peer import POOLS, CeleryPeer
from benchmarks.servers import MissingPeer, rabbitmq, redis_server
from benchmarks.targets import find_worse, print_targets, write_chart
from convotic_celery.embedded import store
from convotic_emulator import daemon
from tests.support.google_emulator import start_google_emulator

_PUBLISHED = 10_000
#: Measured several times per round, in turns: they differ by less than two runs of either.
_IN_TURNS = (
    (
        "throughput/convotic",
        "throughput/convotic, two workers",
        "throughput/convotic, events on",
        "throughput/convotic, typed",
    ),
    ("orders/convotic", "orders/convotic, plain", "orders/celery rabbitmq"),
    ("latency/convotic", "latency/celery rabbitmq"),
)
_TURNS = 3


class Run:
    """All measurements of one run, and their results. The servers end with ``stack``."""

    def __init__(self, stack: ExitStack, folder: Path, options: argparse.Namespace) -> None:
        self.values: dict[str, list[float]] = {}
        self.missing: dict[str, str] = {}
        self._options = options
        self._folder = folder
        self._bench = Bench(folder / "ours", options.messages, options.latencies)
        self._best: dict[str, str] = {}
        self._google: Bench | None = None
        self._peers: dict[str, CeleryPeer] = {}
        for name, server in (("rabbitmq", rabbitmq), ("redis", redis_server)):
            with self._may_be_missing(name):
                url = stack.enter_context(server(folder / name))
                self._peers[name] = CeleryPeer(url, folder / f"celery-{name}")
        with self._may_be_missing("gcpubsub"):
            address = stack.enter_context(start_google_emulator())
            extra = {"PUBSUB_EMULATOR_HOST": address}
            url = "gcpubsub://projects/bench-peers"
            self._peers["gcpubsub"] = CeleryPeer(url, folder / "celery-gcpubsub", extra)
            self._google = Bench(
                folder / "google", options.messages, options.latencies, address=address
            )

    def declare(self) -> None:
        """Start a worker once, which creates the handler's resources."""
        self._bench.declare()
        if self._google:
            self._google.declare()

    def round(self, say: Callable[[str], None]) -> None:
        """Measure everything once, and the kinds in turns several times."""
        kinds = self._kinds()
        chosen = [kind for kind in kinds if any(part in kind for part in self._options.only)]
        groups = [[kind for kind in group if kind in chosen] for group in _IN_TURNS]
        grouped = {kind: group for group in groups for kind in group}
        for kind in chosen:
            group = grouped.get(kind)
            turns = [kind] if group is None else group * _TURNS if kind == group[0] else []
            for name in turns:
                say(name)
                self._measure(name, kinds[name])

    def _measure(self, name: str, measure: Callable[[], Any]) -> Any:
        """Store and return a measurement; None, with the reason, if it is not possible."""
        try:
            outcome = measure()
        except (
            MissingPeer,
            AssertionError,
            GoogleAPIError,
            subprocess.SubprocessError,
            OSError,
        ) as error:
            self.missing[name] = str(error)[:300] or type(error).__name__
            return None
        self._keep(name, outcome)
        return outcome

    def _kinds(self) -> dict[str, Callable[[], Any]]:
        bench, google = self._bench, self._google
        # Close comparisons run close together: the machine's speed changes within a minute.
        kinds: dict[str, Callable[[], Any]] = {
            "throughput/convotic": bench.throughput,
            "throughput/convotic, typed": lambda: bench.throughput(handler="typed"),
        }
        for name in ("rabbitmq", "redis"):
            if name in self._peers:
                kinds[f"throughput/celery {name}"] = partial(self._best_pool, name)
        if "rabbitmq" in self._peers:
            kinds["orders/convotic"] = bench.order_throughput
            kinds["orders/convotic, plain"] = partial(
                bench.order_throughput, handler="order-plain", concurrency=10
            )
            kinds["orders/celery rabbitmq"] = self._best_order_pool
        if "redis" in self._peers:
            kinds["throughput/dramatiq redis"] = lambda: self._peer("redis").dramatiq_throughput(
                self._options.messages
            )
        kinds |= {
            "throughput/convotic, events on": lambda: bench.throughput(events=True),
            "throughput/convotic, deduplicate": lambda: bench.throughput(deduplicate=1),
            "throughput/convotic, concurrency key": lambda: bench.throughput(concurrency_key=1),
            "rows/batches": lambda: bench.throughput(handler="stored-batch"),
            "rows/one by one": lambda: bench.throughput(
                handler="stored", messages=min(3000, self._options.messages)
            ),
            "throughput/convotic, two workers": lambda: bench.throughput(workers=2),
            "latency/convotic": bench.latency,
            "latency/celery rabbitmq": lambda: self._peer("rabbitmq").latency(
                "threads", self._options.latencies
            ),
            "latency/convotic, 300 handlers": lambda: bench.latency(others=300),
            "publish/convotic": lambda: bench.publishing(_PUBLISHED),
            "publish/celery rabbitmq": lambda: self._publish("rabbitmq"),
            "start/convotic": bench.start_seconds,
            "start/celery redis": lambda: self._peer("redis").start_seconds(),
            "start/help": help_seconds,
            "waiting/100": lambda: bench.throughput(messages=4000, wait=0.1),
            "waiting/1000": lambda: bench.throughput(messages=6000, wait=1.0, concurrency=1000),
            "handlers/300": lambda: bench.many_handlers(300),
            "throughput/celery, in memory": bench.in_memory_throughput,
        }
        if "gcpubsub" in self._peers:
            kinds |= distance.kinds(self._folder / "distance")
        if self._options.backlog:
            kinds["backlog"] = lambda: bench.backlog(self._options.backlog)
        if google is not None:
            kinds |= {
                "google/convotic": google.throughput,
                "google/celery gcpubsub": lambda: self._best_pool("gcpubsub"),
            }
        return kinds

    def _peer(self, name: str) -> CeleryPeer:
        if name not in self._peers:
            raise MissingPeer(self.missing.get(name, "not there"))
        return self._peers[name]

    def _publish(self, name: str) -> float:
        return self._peer(name).publish(_PUBLISHED // 3)

    def _best_pool(self, name: str) -> float:
        count = self._options.messages if name == "rabbitmq" else self._options.messages // 4
        peer = self._peer(name)
        return self._best_of(f"celery {name}", lambda pool: peer.throughput(pool, count))

    def _best_order_pool(self) -> float:
        peer = self._peer("rabbitmq")
        kept = f"unix://{store.ensure_running(self._folder / 'orders')}"  # as durable as ours
        return self._best_of("celery orders", lambda pool: peer.order_throughput(pool, kept))

    def _best_of(self, name: str, throughput: Callable[[str], float]) -> float:
        """Measure a peer: first all its pools, then the fastest."""
        if name in self._best:
            return throughput(self._best[name])
        measured = {
            pool: self._measure(f"pools/{name}, {pool}", partial(throughput, pool))
            for pool in POOLS
        }
        rates: dict[str, float] = {
            pool: rate for pool, rate in measured.items() if rate is not None
        }
        if not rates:
            raise MissingPeer(f"no pool of {name} completed a run")
        self._best[name] = max(rates, key=lambda pool: rates[pool])
        return rates[self._best[name]]

    def _keep(self, name: str, outcome: Any) -> None:
        found = {name: outcome}
        if isinstance(outcome, list):
            found = {f"{name}/p{p}": percentile(outcome, p / 100) * 1000 for p in (50, 99)}
        elif isinstance(outcome, tuple):
            found = dict(zip((f"{name}/start", f"{name}/idle"), outcome, strict=True))
        elif isinstance(outcome, dict):
            found = {f"{name}/{part}": value for part, value in outcome.items()}
        for part, value in found.items():
            self.values.setdefault(part, []).append(value)

    def _may_be_missing(self, name: str) -> Any:
        return _Noting(self.missing, name)


class _Noting:
    """Records why something is missing, instead of failing."""

    def __init__(self, missing: dict[str, str], name: str) -> None:
        self._missing = missing
        self._name = name

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        # pytest's Skipped and Failed are BaseExceptions: Google's emulator raises them.
        if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
            return False
        self._missing[self._name] = str(error)[:300]
        return True


def say(title: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {title}: {text}", file=sys.stderr)


def help_seconds() -> float:
    """Return the time of ``convotic --help``."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("convotic")), "--help"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - began


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
    parser.add_argument(
        "--messages", type=int, default=12000, help="messages of each throughput run"
    )
    parser.add_argument("--latencies", type=int, default=200, help="messages of each latency run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="measure what has one of these texts in its name"
    )
    parser.add_argument(
        "--backlog", type=int, default=0, help="also measure a backlog of this size"
    )
    parser.add_argument(
        "--guard", type=Path, help="a run's JSON: exit 1 if a ratio is clearly worse than there"
    )
    options = parser.parse_args()
    # What is installed is compiled, as the peers are: without this, ours is compiled at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    machine = describe_machine()
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        with ExitStack() as stack:
            run = Run(stack, folder, options)
            run.declare()
            for number in range(options.rounds):
                run.round(partial(say, f"round {number + 1} of {options.rounds}"))
    finally:
        for part in ("ours", "google", "distance", "orders"):
            daemon.stop(folder / part)
            store.stop(folder / part)
        shutil.rmtree(folder, ignore_errors=True)
    samples = {name: Sample(tuple(found)) for name, found in run.values.items()}
    print_targets(samples, run.missing)
    path = options.json or ROOT / "benchmarks" / "results" / f"{int(time.time())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine, "missing": run.missing}
    figures = {name: sample.values for name, sample in samples.items()}
    path.write_text(json.dumps(kept | {"figures": figures}, indent=2) + "\n")
    write_chart(samples, path.with_suffix(".svg"))
    load = machine["load_before"][0]
    worse = find_worse(samples, options.guard) if options.guard else []
    for line in worse:
        print(f"worse than in {options.guard}: {line}")
    print(
        f"\n{machine['cpus']} cpus, load {load:.1f} before; stored in {path}, with a chart (.svg)"
    )
    if worse:
        sys.exit(1)


if __name__ == "__main__":
    main()
