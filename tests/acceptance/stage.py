"""A worker of the acceptance tests and the servers around it, as a stranger would use them."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.types import PubsubMessage

from convotic_celery.cli.demo.child import Child
from convotic_celery.cli.demo.producer import make_subscriber
from convotic_celery.embedded import broker_address
from convotic_celery.settings import Settings
from tests.support.lines import read_lines
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["Stage", "Worker", "make_stage"]

TOPIC = "custom.orders.new"
QUEUE = f"{TOPIC}.shop"

#: What the tests' handlers write of each run: one JSON object a line.
MODULE = '''
"""Handlers of the acceptance tests. Each run is one line of JSON in a file.

One of ``{"slow": 2}`` takes two seconds, one of ``{"until": "go"}`` until there is a file of that
name in the stage's folder.
"""

import asyncio
import json
import os
import time
from pathlib import Path

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    SyncConvoticContext,
    WorkerMessage,
)

module = ConvoticModule(name="shop", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def record(message: WorkerMessage, what: str) -> None:
    line = {"what": what, "at": time.time(), "id": message.id, "data": message.data}
    with RECORD.open("a") as file:
        file.write(json.dumps(line | {"attributes": dict(message.attributes)}) + "\\n")


@module.worker("custom.orders.new", max_retries=2, ack_deadline=10, concurrency=1)
async def process_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
    record(message, "start")
    if message.data.get("fail"):
        raise RuntimeError("this order always fails")
    if message.data.get("slow"):
        await asyncio.sleep(message.data["slow"])
    while "until" in message.data and not RECORD.with_name(message.data["until"]).exists():
        await asyncio.sleep(0.05)
    record(message, "end")


@module.worker("custom.orders.plain", ack_deadline=10, concurrency=2)
def process_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
    record(message, "start")
    record(message, "end")
'''


@dataclass
class Worker:
    """A running ``celery -A convotic_celery worker``."""

    child: Child
    log: Path

    def read_log(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Stage:
    """A working folder with a module, and a broker: the embedded one or Google's emulator."""

    folder: Path
    data_dir: Path
    project: str
    #: ``host:port`` of Google's emulator; None for the embedded one.
    google_address: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """``host:port`` of the emulator; the embedded one is started when it does not run."""
        return self.google_address or broker_address(Settings(data_dir=self.data_dir))

    @contextmanager
    def worker(self, *arguments: str, ready: bool = True, **environment: str) -> Iterator[Worker]:
        """Run a worker for the block; by default wait until it can be sent messages."""
        log = self.folder / f"worker-{uuid.uuid4().hex[:6]}.log"
        child = Child(
            ["celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO", *arguments],
            environment=os.environ | self.environment | environment,
            log=log,
            cwd=self.folder,
        )
        worker = Worker(child, log)
        with child:
            try:
                if ready:
                    self.wait_until_ready(worker)
                yield worker
            except BaseException:
                print(worker.read_log()[-6000:])  # noqa: T201 - pytest shows it with the failure
                raise

    def wait_until_ready(self, worker: Worker) -> None:
        """Wait until the worker says that it is ready: its subscriptions exist then."""

        def is_ready() -> bool:
            assert worker.child.is_running, worker.read_log()
            return bool(re.search(r"\bready\b", worker.read_log()))

        wait_until(is_ready, what="the worker to be ready")

    def publish(self, *data: bytes, topic: str = TOPIC, **attributes: str) -> str:
        """Publish with Google's client, as any producer would; return the last confirmed id.

        Several messages are one request: they arrive together, and in this order. Batches would not
        do: a busy machine makes several of them, and they overtake each other.
        """
        path = f"projects/{self.project}/topics/{topic}"
        messages = [PubsubMessage(data=each, attributes=attributes) for each in data]
        transport = PublisherGrpcTransport(channel=grpc.insecure_channel(self.address))
        with PublisherClient(transport=transport) as publisher:
            answer = publisher.publish(topic=path, messages=messages, timeout=PATIENCE)
        return str(answer.message_ids[-1])

    def publish_json(self, *data: object, topic: str = TOPIC, **attributes: str) -> str:
        """Publish JSON documents."""
        return self.publish(
            *(json.dumps(each).encode() for each in data), topic=topic, **attributes
        )

    def read_runs(self, what: str = "start") -> list[dict[str, Any]]:
        """Return what the handlers have recorded, in order."""
        runs = map(json.loads, read_lines(self.folder / "record.jsonl"))
        return [run for run in runs if run["what"] == what]

    def pull_dead_letter(self, *, queue: str = QUEUE) -> PubsubMessage:
        """Wait for one dead letter of the queue, acknowledge it and return it."""
        message: PubsubMessage = self.pull(f"{queue}.dead-letter").message
        return message

    def pull(self, name: str) -> Any:
        """Wait for one message of a subscription, acknowledge it and return it."""
        with make_subscriber(self.address) as subscriber:
            # One call that waits, not many short ones: a message given to a call that has just
            # ended comes again when its lease is over, which is too late.
            return wait_until(
                lambda: self._pull(subscriber, name, PATIENCE), what=f"a message of {name}"
            )

    def has_message(self, name: str) -> bool:
        """Say whether a subscription has a message now; it is acknowledged."""
        with make_subscriber(self.address) as subscriber:
            return self._pull(subscriber, name, 2.0) is not None

    def _pull(self, subscriber: Any, name: str, timeout: float) -> Any:
        path = f"projects/{self.project}/subscriptions/{name}"
        try:
            answer = subscriber.pull(subscription=path, max_messages=1, timeout=timeout)
        except GoogleAPICallError:  # DEADLINE_EXCEEDED is how an empty subscription answers
            return None
        for received in answer.received_messages:
            subscriber.acknowledge(subscription=path, ack_ids=[received.ack_id])
            return received
        return None


def make_stage(folder: Path, data_dir: Path, google_address: str | None) -> Stage:
    """Return a stage in ``folder`` with the tests' module in its ``modules/``."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "shop.py").write_text(MODULE)
    environment = {
        "CONVOTIC_DATA_DIR": str(data_dir),
        "CONVOTIC_TEST_RECORD": str(folder / "record.jsonl"),
    }
    project = "convotic-local"
    if google_address is not None:
        project = f"convotic-test-{uuid.uuid4().hex[:8]}"
        environment["PUBSUB_EMULATOR_HOST"] = google_address
        environment["CONVOTIC_BROKER_URL"] = f"pubsub://{project}"
    return Stage(folder, data_dir, project, google_address, environment)
