"""How far away the server may be: ``python -m benchmarks.distance [--seconds 6]``.

One worker on a backlog, through a proxy that delays both ways; messages a second by round trip
(ms), concurrency and how long the handler waits (ms). Prints a table.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.ours import Bench
from benchmarks.peer import CeleryPeer
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
    parser.add_argument("--trips", type=int, nargs="*", default=ROUND_TRIPS)
    parser.add_argument("--concurrencies", type=int, nargs="*", default=CONCURRENCIES)
    parser.add_argument("--waits", type=int, nargs="*", default=WAITS)
    parser.add_argument("--proxy", metavar="ADDRESS", help="only be the proxy of this server")
    options = parser.parse_args()
    if options.proxy:
        serve_proxy(options.proxy, options.trips[0])
        return
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        address = daemon.ensure_running(folder)
        Bench(folder, 0, 0, address).declare()
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
                shares = "  ".join(
                    f"{trip:3} ms {rate:7,.0f} ({rate / rates[0]:4.0%})"
                    for trip, rate in zip(options.trips, rates, strict=True)
                )
                sys.stdout.write(f"handler {wait} ms, concurrency {concurrency:3}: {shares}\n")
                sys.stdout.flush()
    finally:
        daemon.stop(folder)
        shutil.rmtree(folder)


def kinds(folder: Path, peer_messages: int = 1000) -> dict[str, Callable[[], float]]:
    """Return what `make bench` measures: us and gcpubsub, one server, concurrency 100, a no-op."""

    def serve() -> str:
        # Here, not before: an emulator ends a minute after its last client.
        address = daemon.ensure_running(folder)
        Bench(folder, 0, 0, address).declare()
        return address

    def ours(trip: int) -> float:
        with delayed(serve(), trip) as near:
            return Bench(folder, 0, 0, near).throughput(messages=12_000, concurrency=100)

    def theirs(trip: int) -> float:
        with delayed(serve(), trip) as near:
            extra = {"PUBSUB_EMULATOR_HOST": near}
            peer = CeleryPeer("gcpubsub://projects/bench-distance", folder / f"peer-{trip}", extra)
            return peer.throughput("threads", peer_messages)

    return {
        f"distance/{name}, {trip} ms": partial(measure, trip)
        for trip in BENCHED
        for name, measure in (("convotic", ours), ("celery gcpubsub", theirs))
    }


def serve_proxy(address: str, round_trip_ms: float) -> None:
    """Be a proxy until standard input ends."""
    with run_proxy(address) as proxy:
        proxy.delay_seconds = round_trip_ms / 2000
        sys.stdout.write(f"{proxy.address}\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextmanager
def delayed(address: str, round_trip_ms: float) -> Iterator[str]:
    """Give the address of a proxy in a process of its own; at 0 ms the server's."""
    if not round_trip_ms:
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
