"""Break one part after another while messages flow; print and keep what became of them.

``python -m tests.chaos [--seconds 600] [--seed N] [--faults worker-killed,store-readonly]``

The exit status is 1 when a confirmed message was lost, one was dead-lettered that never ran, an
effect with a key counted wrong, or a worker ended by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from google.api_core.exceptions import GoogleAPICallError

from convotic_celery.cli.demo.producer import make_subscriber
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import DeadLetter, Verdict
from tests.chaos.world import PROJECT, TOPICS, World
from tests.support.waiting import wait_until

#: What is under way may have to wait for a lease, a back-off and a worker that starts.
SETTLE_SECONDS = 180.0


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of order and choice")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, by name")
    parser.add_argument("--each", type=float, default=8.0, help="seconds that a fault holds")
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    options = parser.parse_args()
    names = options.faults.split(",")
    if unknown := set(names) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(unknown)}. There are {', '.join(FAULTS)}.")
    random.seed(options.seed)
    logging.disable(logging.ERROR)  # the publisher's; workers log to their own files
    say(f"seed {options.seed}, {len(names)} faults, {options.seconds:g} s")
    folder = Path(tempfile.mkdtemp(prefix="convotic-chaos-"))
    verdict = None
    try:
        with World(folder, options.workers) as world:
            verdict = run(world, names, options)
    finally:
        if verdict is not None and verdict.holds:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"logs and ledger stay in {folder}")
    say(verdict.show())
    if options.json:
        kept = {"seed": options.seed, "faults": names, "seconds": options.seconds}
        options.json.write_text(json.dumps(kept | asdict(verdict), indent=2) + "\n")
    return 0 if verdict.holds else 1


def run(world: World, names: list[str], options: argparse.Namespace) -> Verdict:
    """Publish while faults come and go, then wait until everything has ended."""
    app, context = world.make_publisher()
    stop = Event()
    publishing = threading.Thread(target=publish, args=(world, context, options.rate, stop))
    publishing.start()
    try:
        break_things(world, names, options)
    finally:
        stop.set()
        publishing.join(120)
    is_settled = settle(world)
    say("everything has ended" if is_settled else f"not settled after {SETTLE_SECONDS:g} s")
    total = world.read_total(context)
    app.close()
    return world.ledger.judge(total=total, workers_that_ended=world.workers_that_ended)


def publish(world: World, context: Any, rate: float, stop: Event) -> None:
    """Publish one message after the other; only what was confirmed counts."""
    number = 0
    while not stop.wait(1 / rate):
        number += 1
        topic = TOPICS[number % len(TOPICS)]
        message_id = f"{topic.rpartition('.')[2]}-{number}"
        # A fifth of those that fail do so more often than they may.
        failures = 9 if number % 15 == 2 else number % 4
        with suppress(Exception):  # not confirmed: nothing was promised about it
            context.pubsub.publish(topic, data={"id": message_id, "failures": failures})
            world.ledger.confirmed.add(message_id)


def break_things(world: World, names: list[str], options: argparse.Namespace) -> None:
    """Go through all faults in a random order, again and again."""
    ends_at = time.monotonic() + options.seconds
    waiting: list[str] = []
    while time.monotonic() < ends_at:
        if not waiting:
            waiting = random.sample(names, len(names))
        name = waiting.pop()
        seconds = min(random.uniform(0.5, 1.5) * options.each, max(1, ends_at - time.monotonic()))
        say(f"{name} for {seconds:.0f} s; {len(world.ledger.confirmed)} confirmed")
        with contextmanager(FAULTS[name])(world):
            Event().wait(seconds)
        Event().wait(min(3.0, options.each / 3))
        world.revive()


def settle(world: World) -> bool:
    """Wait until each confirmed message was finished or dead-lettered; collect the dead letters."""
    with make_subscriber(world.broker_proxy.address) as subscriber:

        def is_settled() -> bool:
            world.revive()
            for topic in TOPICS:
                collect(world, subscriber, f"{topic}.chaos.dead-letter")
            return world.ledger.settled()

        try:
            return wait_until(is_settled, timeout=SETTLE_SECONDS, what="all to end")
        except AssertionError:
            return False


def collect(world: World, subscriber: Any, name: str) -> None:
    """Read what a dead-letter subscription has."""
    path = f"projects/{PROJECT}/subscriptions/{name}"
    try:
        answer = subscriber.pull(subscription=path, max_messages=1000, timeout=2)
    except GoogleAPICallError:  # DEADLINE_EXCEEDED is how an empty one answers
        return
    for received in answer.received_messages:
        attributes, copy = received.message.attributes, received.message.message_id
        world.ledger.dead_letters.add(
            DeadLetter(
                json.loads(received.message.data)["id"],
                attributes.get("convotic-dead-letter-message-id", copy),
                copy,
                attributes.get("convotic-dead-letter-reason", "none"),
            )
        )
    ids = [received.ack_id for received in answer.received_messages]
    if ids:
        subscriber.acknowledge(subscription=path, ack_ids=ids)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
