"""How far away the servers may be: ``python -m benchmarks.distance [--seconds 6]``.

One worker on a backlog, through a proxy that delays both ways; messages a second by round trip
(ms), concurrency and how long the handler waits (ms). Prints a table. ``--store`` delays the store
instead, for ``deduplicate``; ``--share`` has a second worker join, and prints its share of the
messages in each half second.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.ours import Bench
from benchmarks.peer import CeleryPeer
from convotic_celery.embedded import store
from convotic_emulator import daemon
from tests.support.proxy import run_proxy

ROUND_TRIPS = (0, 20, 50)
#: Those of `make bench`, which has a peer beside us: kombu's gcpubsub.
BENCHED = (0, 5, 20, 50)
CONCURRENCIES = (1, 10, 100)
WAITS = (0, 5)
#: Messages a second that are expected at most, to know how large a backlog lasts a while.
MOST = {1: 1500, 10: 5000, 100: 10_000}


def main() -> None:
    """Measure, print a row for each concurrency and handler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--trips", type=float, nargs="*", default=ROUND_TRIPS)
    parser.add_argument("--concurrencies", type=int, nargs="*", default=CONCURRENCIES)
    parser.add_argument("--waits", type=int, nargs="*", default=WAITS)
    parser.add_argument("--store", action="store_true", help="delay the store, not the broker")
    parser.add_argument("--share", action="store_true", help="a second worker joins a backlog")
    parser.add_argument("--proxy", metavar="ADDRESS", help="only be the proxy of this server")
    options = parser.parse_args()
    if options.proxy:
        serve_proxy(options.proxy, options.trips[0])
        return
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        address = daemon.ensure_running(folder)
        Bench(folder, 0, 0, address).declare()
        if options.share:
            for trip in options.trips:
                _print(f"{trip:3g} ms", share_of_second(folder, address, trip), "{:.2f}")
            return
        if options.store:
            for concurrency in options.concurrencies:
                rates = [deduplicated(folder, address, trip, concurrency) for trip in options.trips]
                shares = [rate / rates[0] for rate in rates]
                title = f"deduplicate, concurrency {concurrency:3}, store {options.trips} ms"
                _print(title, rates, "{:,.0f}")
                _print(title, shares, "{:.2f}")
            return
        for wait in options.waits:
            for concurrency in options.concurrencies:
                rates = []
                for trip in options.trips:
                    most = min(MOST[concurrency], 1000 * concurrency / wait if wait else 1e9)
                    with delayed(address, trip) as near:
                        bench = Bench(folder, 0, 0, near)
                        # What limits at a distance is not to take minutes.
                        seconds = options.seconds if not trip else options.seconds / 2
                        count = max(300, int(most * seconds))
                        rates.append(
                            bench.throughput(
                                messages=count, concurrency=concurrency, wait=wait / 1000
                            )
                        )
                row = "  ".join(
                    f"{trip:3g} ms {rate:7,.0f} ({rate / rates[0]:4.0%})"
                    for trip, rate in zip(options.trips, rates, strict=True)
                )
                sys.stdout.write(f"handler {wait} ms, concurrency {concurrency:3}: {row}\n")
                sys.stdout.flush()
    finally:
        daemon.stop(folder)
        store.stop(folder)
        shutil.rmtree(folder)


def _print(title: str, values: Iterable[float], form: str) -> None:
    sys.stdout.write(f"{title}: {'  '.join(form.format(value) for value in values)}\n")
    sys.stdout.flush()


def deduplicated(folder: Path, address: str, trip: float, concurrency: int = 100) -> float:
    """Return the rate of ``deduplicate`` with the store behind a proxy, which at 0 ms only passes.

    The proxy takes a part of the two cores: so 0 ms has one, too.
    """
    socket = store.ensure_running(folder)
    with delayed(str(socket), trip, always=True) as near:
        bench = Bench(folder, 0, 0, address, store_url=f"redis://{near}/0")
        return bench.throughput(messages=12_000, concurrency=concurrency, deduplicate=1)


def share_of_second(folder: Path, address: str, trip: float) -> list[float]:
    """Return the second worker's share; a handler of 10 ms, ten at a time."""
    with delayed(address, trip) as near:
        return Bench(folder, 0, 0, near).second_worker(concurrency=10, wait=0.01)


def kinds(folder: Path, peer_messages: int = 1000) -> dict[str, Callable[[], float]]:
    """Return what `make bench` measures: us and gcpubsub, one server, concurrency 100, a no-op."""

    def serve() -> str:
        # Here, not before: an emulator ends a minute after its last client.
        address = daemon.ensure_running(folder)
        bench = Bench(folder, 0, 0, address)
        if not bench.is_declared():
            bench.declare()
        return address

    def ours(trip: int) -> float:
        with delayed(serve(), trip) as near:
            return Bench(folder, 0, 0, near).throughput(messages=12_000, concurrency=100)

    def theirs(trip: int) -> float:
        with delayed(serve(), trip) as near:
            extra = {"PUBSUB_EMULATOR_HOST": near}
            peer = CeleryPeer("gcpubsub://projects/bench-distance", folder / f"peer-{trip}", extra)
            return peer.throughput("threads", peer_messages)

    def second(trip: int) -> float:
        return statistics.mean(share_of_second(folder, serve(), trip))

    def far_store(trip: int) -> float:
        return deduplicated(folder, serve(), trip)

    rates: dict[str, Callable[[], float]] = {
        f"distance/{name}, {trip} ms": partial(measure, trip)
        for trip in BENCHED
        for name, measure in (("convotic", ours), ("celery gcpubsub", theirs))
    }
    rates |= {f"distance/convotic, store {trip} ms": partial(far_store, trip) for trip in (0, 1, 5)}
    return rates | {
        f"distance/convotic, second worker, {trip} ms": partial(second, trip) for trip in (0, 20)
    }


def serve_proxy(address: str, round_trip_ms: float) -> None:
    """Be a proxy until standard input ends."""
    with run_proxy(address) as proxy:
        proxy.delay_seconds = round_trip_ms / 2000
        sys.stdout.write(f"{proxy.address}\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextmanager
def delayed(address: str, round_trip_ms: float, *, always: bool = False) -> Iterator[str]:
    """Give the address of a proxy in a process of its own; at 0 ms the server's."""
    if not (round_trip_ms or always):
        yield address
        return
    command = [sys.executable, "-m", "benchmarks.distance", "--proxy", address]
    command += ["--trips", str(round_trip_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


if __name__ == "__main__":
    main()
