"""The processes of a run of chaos: broker, store, workers, and the proxies in front of the two."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from convotic_celery.app import create_app
from convotic_celery.cli.demo.child import Child
from convotic_celery.context import Delivery
from convotic_celery.embedded.store import find_binary
from convotic_celery.settings import Settings
from tests.chaos.ledger import Ledger
from tests.chaos.module import CONTACT
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["PROJECT", "World"]

PROJECT = "chaos"
TOPICS = ("chaos.keyed", "chaos.plain", "chaos.failing")


class World:
    """Everything that runs. As a context manager it ends with the block."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "ledger.txt")
        self.workers_that_ended = 0
        #: False once the store's data was taken away: its totals mean nothing then.
        self.store_is_whole = True
        self._ports = [free_port() for _ in range(2)]
        self.broker = self._start_broker()
        self.store = self._start_store()
        self.broker_proxy = Proxy(f"127.0.0.1:{self._ports[0]}")
        self.store_proxy = Proxy(f"127.0.0.1:{self._ports[1]}")
        #: Straight to the store, past the proxy. Any: half of its methods have no types.
        self.redis: Any = redis.Redis(port=self._ports[1], decode_responses=True)
        self._environment = {
            "CONVOTIC_DATA_DIR": str(folder / "data"),
            "CONVOTIC_BROKER_URL": f"pubsub://{PROJECT}",
            "PUBSUB_EMULATOR_HOST": self.broker_proxy.address,
            "CONVOTIC_REDIS_URL": f"redis://{self.store_proxy.address}",
            "CONVOTIC_MODULES": "tests.chaos.module",
            "CONVOTIC_TEST_LEDGER": str(folder / "ledger.txt"),
        }
        #: Where in its log each worker begins.
        self._log_starts: dict[int, int] = {}
        self.workers = [self._start_worker(number) for number in range(workers)]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Wait until the workers are ready."""
        for number in range(len(self.workers)):
            self.wait_until_ready(number)
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        for worker in self.workers:
            worker.kill()
        for process in (self.broker, self.store):
            process.kill()
            process.wait()
        self.broker_proxy.close()
        self.store_proxy.close()

    # -- parts ------------------------------------------------------------------------------------

    def _start_broker(self) -> subprocess.Popen[bytes]:
        data = self.folder / "broker"
        return self._run(
            [
                *(sys.executable, "-m", "convotic_emulator"),
                *("--data-dir", str(data), "--port", str(self._ports[0])),
            ],
            self._ports[0],
        )

    def _start_store(self) -> subprocess.Popen[bytes]:
        data = self.folder / "store"
        data.mkdir(exist_ok=True)
        options = ("--appendonly", "yes", "--save", "", "--busy-reply-threshold", "500")
        port = self._ports[1]
        return self._run(
            [str(find_binary()), "--port", str(port), "--dir", str(data), *options], port
        )

    def _run(self, command: list[str], port: int) -> subprocess.Popen[bytes]:
        with (self.folder / "servers.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: _listens(port), what=f"{command[0]} to listen")
        return process

    def _start_worker(self, number: int) -> Child:
        log = self.folder / f"worker-{number}.log"
        self._log_starts[number] = log.stat().st_size if log.exists() else 0
        return Child(
            [
                *("celery", "-A", "convotic_celery", "worker", "--loglevel", "INFO"),
                *("-n", f"chaos-{number}-{os.getpid()}@%h"),
            ],
            environment=os.environ | self._environment,
            log=log,
            cwd=Path(__file__).parents[2],
        )

    def wait_until_ready(self, number: int) -> None:
        """Wait until a worker is, not only the one before it; or until it has ended."""
        log = self.folder / f"worker-{number}.log"

        def is_ready() -> bool:
            said = log.read_bytes()[self._log_starts[number] :]
            return b"ready." in said or not self.workers[number].is_running

        wait_until(is_ready, what=f"worker {number}")

    # -- what faults do ---------------------------------------------------------------------------

    def kill_broker(self) -> None:
        """kill -9, and start it again on the same data."""
        self.broker.kill()
        self.broker.wait()
        self.broker = self._start_broker()

    def kill_store(self) -> None:
        """As :meth:`kill_broker`."""
        self.store.kill()
        self.store.wait()
        self.store = self._start_store()

    def kill_worker(self, number: int) -> None:
        """kill -9, and start another."""
        self.replace_worker(number, signal.SIGKILL)

    def replace_worker(self, number: int, how: signal.Signals) -> None:
        """Send a signal, wait for the worker's end, and start another."""
        with self._lock:
            worker = self.workers[number]
            if how is signal.SIGKILL:
                worker.kill()
            else:
                worker.terminate()
                worker.wait(PATIENCE)
            self.workers[number] = self._start_worker(number)

    def revive(self) -> None:
        """Start a worker in the place of each that has ended by itself, and count it."""
        with self._lock:
            for number, worker in enumerate(self.workers):
                if not worker.is_running:
                    self.workers_that_ended += 1
                    self.workers[number] = self._start_worker(number)

    def worker_process(self, number: int) -> psutil.Process:
        """Return a worker's process."""
        return psutil.Process(self.workers[number]._process.pid)

    # -- what the publisher and the judge do ------------------------------------------------------

    def make_publisher(self) -> Any:
        """Return an app that publishes through the proxies, as a web server would."""
        os.environ["PUBSUB_EMULATOR_HOST"] = self.broker_proxy.address
        settings = Settings(
            data_dir=self.folder / "data",
            broker_url=f"pubsub://{PROJECT}",
            redis_url=f"redis://{self.store_proxy.address}",
            modules=["tests.chaos.module"],
        )
        app = create_app(settings, set_as_current=False)
        context = app.services.sync_context(
            Delivery(handler="chaos", topic="chaos", message_id="chaos")
        )
        if context.contacts.find_by_external_id(CONTACT) is None:
            context.contacts.create(external_id=CONTACT)
        return app, context

    def read_total(self, context: Any) -> int | None:
        """Return what the effects with a key add up to."""
        if not self.store_is_whole:
            return None
        contact = context.contacts.find_by_external_id(CONTACT)
        return int(contact.totals.get("messages", 0))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
