"""What a demo needs around it: servers, worker, producer, a folder; and their end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from google.api_core.exceptions import (
    DeadlineExceeded,
    GoogleAPICallError,
    NotFound,
    ServiceUnavailable,
)
from google.auth.exceptions import GoogleAuthError

from convotic_celery import embedded
from convotic_celery.cli.demo.chaos import CHAOS_OPTIONS
from convotic_celery.cli.demo.child import Child
from convotic_celery.cli.demo.producer import Producer, make_subscriber
from convotic_celery.cli.demo.store import DemoStore
from convotic_celery.configuration import LOCAL_BROKER_URL
from convotic_celery.embedded import store as embedded_store
from convotic_celery.errors import ConfigurationError
from convotic_celery.modules import load_modules
from convotic_celery.settings import Settings
from convotic_emulator import daemon

if TYPE_CHECKING:
    from convotic_celery.cli.demo.figures import StoreFigures

__all__ = ["Scene"]

MODULE = "convotic_order_processor"


class Scene:
    """Everything around one demo. As a context manager it leaves nothing behind."""

    def __init__(self, *, chaos: bool, warn: Callable[[str], None]) -> None:
        """Plan a demo; servers are started on entering."""
        self._chaos = chaos
        self._warn = warn
        self._stack = ExitStack()
        self._run_id = uuid.uuid4().hex[:8]

    def __enter__(self) -> Self:
        """Start the servers that are not given, and connect to them."""
        with ExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(prefix="convotic-demo-"))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._given = Settings()
            self._settings = self._given.model_copy(update=self._changes())
            self._settings.refuse_embedded_where_wrong()
            self._handler = load_modules(self._settings)[0].handlers[0]
            self._open_servers(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End children and servers, and remove the folder; a second Ctrl-C does not stop that."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        try:
            self._stack.close()
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _changes(self) -> dict[str, Any]:
        """Return what differs from the settings that the user gave."""
        given = self._given
        changes: dict[str, Any] = {"data_dir": self._folder, "modules": [MODULE]}
        if given.pubsub_emulator_host and not given.broker_url:
            # A project of its own: what an earlier run left on that emulator is not ours to count.
            changes["broker_url"] = f"pubsub://convotic-demo-{self._run_id}"
        elif given.broker_url:
            if not given.broker_url.startswith("pubsub://"):
                raise ConfigurationError("CONVOTIC_BROKER_URL: the demo runs on pubsub://PROJECT.")
            self._warn(
                f"topics and subscriptions of the sample module on {given.broker_url} are used"
            )
        if not given.store_is_embedded:
            self._warn("the store is yours; this run's keys have a prefix of their own")
            changes["store_key_prefix"] = f"convotic-demo-{self._run_id}:"
        if self._chaos:
            changes["handler_options"] = {"custom.orders.new": CHAOS_OPTIONS}
        return changes

    def _environment(self) -> dict[str, str]:
        """Return a child's environment: the user's, and the changes as variables."""
        environment = dict(os.environ)
        for name, value in self._changes().items():
            as_json = isinstance(value, list | dict)
            environment[f"CONVOTIC_{name.upper()}"] = json.dumps(value) if as_json else str(value)
        return environment

    def _open_servers(self, stack: ExitStack) -> None:
        settings = self._settings
        stack.callback(embedded_store.stop, self._folder)
        self._store = DemoStore(settings)
        stack.callback(self._store.close)
        self._store.count_processed()  # fails before anything runs if the store is down
        if not settings.store_is_embedded:
            stack.callback(self._store.delete_everything)
        self._address = settings.pubsub_emulator_host
        if settings.broker_is_embedded:
            stack.callback(daemon.stop, self._folder)
            self._address = embedded.broker_address(settings)
        project = (settings.broker_url or LOCAL_BROKER_URL).removeprefix("pubsub://").split("/")[0]
        self._project_path = f"projects/{project}"
        try:
            self._subscriber = stack.enter_context(make_subscriber(self._address))
            with suppress(NotFound):
                self._get_subscription()
        except (GoogleAPICallError, GoogleAuthError) as error:
            where = self._address or "Google Cloud"
            raise ConfigurationError(f"Pub/Sub can't be used at {where}: {error}") from error
        self.producer = Producer(
            f"{self._project_path}/topics/{self._handler.topic}", emulator_address=self._address
        )
        stack.callback(self.producer.close)
        self._children = stack.enter_context(ExitStack())

    def start_worker(self) -> None:
        """Start a worker in the background."""
        arguments = ["celery", "-A", "convotic_celery", "worker", "--loglevel", "WARNING"]
        log = self._folder / "worker.log"
        self._worker = Child(arguments, environment=self._environment(), log=log)
        self._children.callback(self._worker.stop)

    def kill_worker(self) -> None:
        """SIGKILL the worker and all its children."""
        self._worker.kill()

    @property
    def worker_is_running(self) -> bool:
        """False once the worker has ended."""
        return self._worker.is_running

    def worker_log(self) -> str:
        """Return the worker's last lines."""
        return self._worker.last_lines()

    def is_subscribed(self) -> bool:
        """Tell whether the handler's subscription exists: what is published from now on is kept."""
        try:
            self._get_subscription()
        except (NotFound, DeadlineExceeded, ServiceUnavailable):
            return False
        return True

    def _get_subscription(self) -> None:
        path = f"{self._project_path}/subscriptions/{self._handler.subscription}"
        self._subscriber.get_subscription(subscription=path, timeout=5, retry=None)

    def count_processed(self) -> int:
        """Return how many orders are in the store."""
        return self._store.count_processed()

    def read_figures(self) -> StoreFigures:
        """Return the figures of the store."""
        return self._store.read_figures()

    def count_dead_letters(self) -> int:
        """Pull the dead-letter subscription until it is empty; return how many messages it holds.

        They are not acknowledged, so a real subscription keeps them.
        """
        path = f"{self._project_path}/subscriptions/{self._handler.dead_letter_topic}"
        found: set[str] = set()
        while True:
            try:
                answer = self._subscriber.pull(
                    subscription=path, max_messages=1000, timeout=2, retry=None
                )
            except (DeadlineExceeded, ServiceUnavailable):
                return len(found)  # how an empty subscription answers
            before = len(found)
            found.update(received.message.message_id for received in answer.received_messages)
            if len(found) == before:
                return before

    def start_flower(self) -> str:
        """Start Flower on a free port and return its address; it answers a little later."""
        port = _find_port()
        arguments = ["celery", "-A", "convotic_celery", "flower"]
        flower = Child(
            [*arguments, "--address=127.0.0.1", f"--port={port}"],
            environment=self._environment() | {"FLOWER_UNAUTHENTICATED_API": "true"},
            log=self._folder / "flower.log",
        )
        self._children.callback(flower.stop)
        return f"http://127.0.0.1:{port}"

    def start_dashboard(self) -> str:
        """Start the dashboard on a free port and return its address, as :meth:`start_flower`."""
        port = _find_port()
        dashboard = Child(
            ["convotic_celery.cli", "dashboard", f"--port={port}"],
            environment=self._environment(),
            log=self._folder / "dashboard.log",
        )
        self._children.callback(dashboard.stop)
        return f"http://127.0.0.1:{port}/"

    def answers(self, address: str) -> bool:
        """Tell whether a page answers."""
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310 - our own http address
                return True
        except (urllib.error.URLError, OSError):
            return False


def _find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
