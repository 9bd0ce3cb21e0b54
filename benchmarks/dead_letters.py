"""Dead letters by the 100,000: the first page, groups, a filter, a replay, and the memory.

    python -m benchmarks.dead_letters [COUNT]

On the embedded emulator and store, in a folder of its own that is deleted afterwards.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from convotic_celery import ConvoticModule
from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters import Match
from convotic_celery.embedded import store as embedded_store
from convotic_celery.settings import Settings
from convotic_emulator import daemon
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.registry import session_for

TOPIC, QUEUE = "bench.orders", "bench.orders.bench"
ERRORS = [f"shop.errors.Error{number}" for number in range(20)]


def main(count: int) -> None:
    """Make the dead letters, and print how long each thing takes."""
    with tempfile.TemporaryDirectory(prefix="convotic-bench-") as folder:
        settings = Settings(data_dir=Path(folder), modules=[])
        module = ConvoticModule(name="bench", version="1")

        @module.worker(TOPIC, max_retries=0)
        async def handle(message: Any, ctx: Any) -> None:
            pass

        app = ConvoticApp(settings, module.collect().handlers, set_as_current=False)
        try:
            measure(app, count)
        finally:
            session_for(*app._broker_parameters()).close()
            app.store.close()
            app.close()
            daemon.stop(settings.data_dir)
            embedded_store.stop(settings.data_dir)


def measure(app: ConvoticApp, count: int) -> None:
    dead, client = app.dead_letters, app.store.sync_client()
    session = session_for(*app._broker_parameters())
    spec = app.conf.broker_transport_options["queues"][QUEUE]
    session.resources.ensure(spec)
    show("publish to the dead-letter topic", lambda: publish(session, spec, count), count)
    before = client.info("memory")["used_memory"]
    memory = rss()
    show("sync: all taken in", lambda: dead.sync(QUEUE), count)
    used = client.info("memory")["used_memory"] - before
    print(f"{'the store, for each entry':<42}{used / count:>10,.0f} bytes")
    print(f"{'this process, grown by':<42}{(rss() - memory) / 1e6:>10,.0f} MB")
    show("first page of 50", lambda: dead.list(limit=50))
    show("first page of one group", lambda: dead.list(Match(error="Error3")))
    show("groups", dead.groups)
    everywhere = Match(payload={"customer.city": "Edinburgh"})
    show("first page by a path into the payload", lambda: dead.list(everywhere))
    nowhere = Match(payload={"customer.city": "Nowhere"})
    show("a filter that nothing matches", lambda: dead.list(nowhere))
    show("groups by a path into the payload", lambda: dead.groups(everywhere))
    show("count by an attribute", lambda: dead.count(Match(attributes={"source": "web"})))
    memory = rss()
    show("replay of one", lambda: dead.replay(Match(ids=("m5",)), by="bench"))
    began = time.monotonic()
    published = 0.0

    def notice(job: Any) -> None:
        nonlocal published
        if not published and job.done >= job.total:
            published = time.monotonic() - began

    job = dead.replay(Match(), by="bench", on_progress=notice)
    total = time.monotonic() - began
    assert job.done == count - 1, job
    for what, seconds in (("published", published), ("and acknowledged", total)):
        rate = job.done / seconds
        print(f"{f'replay of all: {what}':<42}{seconds * 1000:>10,.0f} ms{rate:>12,.0f}/s")
    print(f"{'this process, grown by':<42}{(rss() - memory) / 1e6:>10,.0f} MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'this process, at most':<42}{peak:>10,.0f} MB")


def publish(session: Any, spec: Any, count: int) -> None:
    """Publish dead letters as workers do, 20 kinds of them."""
    now = datetime.now(UTC) - timedelta(hours=1)
    prefix = "convotic-dead-letter-"
    futures = []
    for number in range(count):
        city = "Edinburgh" if number % 1000 == 0 else "Leith"
        data = {"id": number, "customer": {"city": city, "name": "x" * 200}, "paid": True}
        attributes = {
            f"{prefix}reason": "max-retries-exceeded",
            f"{prefix}message-id": f"m{number}",
            f"{prefix}attempts": "6",
            f"{prefix}subscription": QUEUE,
            f"{prefix}topic": TOPIC,
            f"{prefix}error-type": ERRORS[number % len(ERRORS)],
            f"{prefix}error-message": f"order {number} can't be processed",
            f"{prefix}stack": "shop:process\nshop.stock:reserve\nshop.database:execute",
            f"{prefix}at": (now + timedelta(milliseconds=number)).isoformat(),
            "source": "web" if number % 2 else "api",
        }
        message = OutgoingMessage(spec.dead_letter_topic, json.dumps(data).encode(), attributes)
        futures.append(session.publish(message))
        if len(futures) >= 2_000:
            for future in futures:
                future.result(60)
            futures.clear()
    for future in futures:
        future.result(60)


def show(what: str, function: Callable[[], object], count: int = 0) -> None:
    """Print how long a call takes; of quick ones the median of five."""
    times: list[float] = []
    while len(times) < 5:
        began = time.monotonic()
        function()
        times.append(time.monotonic() - began)
        if count or what.startswith("replay"):
            break
    seconds = sorted(times)[len(times) // 2]
    rate = f"{count / seconds:>12,.0f}/s" if count else ""
    print(f"{what:<42}{seconds * 1000:>10,.0f} ms{rate}", flush=True)


def rss() -> int:
    """Return this process's memory in bytes."""
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
