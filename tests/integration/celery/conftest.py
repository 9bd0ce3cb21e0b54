"""A plain Celery app on ``pubsub://``, without the framework, and real workers for it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from convotic_celery.cli.demo.child import Child
from convotic_pubsub.session import Session
from tests.support.lines import read_lines
from tests.support.pubsub import unique
from tests.support.valkey import run_valkey
from tests.support.waiting import wait_until

#: Written to ``plain.py``: an app as a stranger would write it.
APP = """
import json
import os
import signal
import time

from celery import Celery
from celery.exceptions import Ignore, Reject
from kombu import Queue
from kombu.common import Broadcast

app = Celery("plain", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    broker_transport_options={"prefix": os.environ["PREFIX"]},
    result_extended=True,
    task_queues=[Queue("celery"), Broadcast("news")],
    task_acks_late=True,
    worker_max_tasks_per_child=5,
)
app.conf.update(json.loads(os.environ.get("MORE", "{}")))


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise RuntimeError("as asked")


@app.task(bind=True)
def reject(self, requeue=False):
    if requeue and self.request.delivery_info.get("redelivered"):
        return "again"
    raise Reject("as asked", requeue=requeue)


@app.task
def ignore():
    raise Ignore


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def retry(self):
    if self.request.retries < 2:
        self.retry()
    return self.request.retries


@app.task(bind=True)
def read_priority(self):
    return self.request.delivery_info["priority"]


@app.task
def hang():
    time.sleep(600)  # noqa: TID251


@app.task
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def die_once(self):
    if not self.request.delivery_info.get("redelivered"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "again"


@app.task
def note_and_hang_once(text):
    with open(os.environ["RECORD"], "a+") as record:
        record.seek(0)
        is_first = text not in record.read()
    note(text)
    if is_first:
        time.sleep(600)  # noqa: TID251


@app.task
def note(text):
    with open(os.environ["RECORD"], "a") as record:
        record.write(f"{os.getppid()} {text}\\n")
"""


#: Celery's backend drops its connections unclosed when one of them has failed.
DROPPED = "ignore:unclosed <socket.* raddr=/.*valkey.sock:ResourceWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let connections to Redis that Celery has dropped fail no test."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(DROPPED))


@dataclass
class Plain:
    """The app, its folder and its workers."""

    folder: Path
    environment: dict[str, str]
    prefix: str
    emulator: str
    app: Any = field(init=False)

    def __post_init__(self) -> None:
        # Not the current app: it would outlive its module as that, closed.
        self.app = Celery(
            "plain",
            broker=self.environment["BROKER"],
            backend=self.environment["BACKEND"],
            set_as_current=False,
        )
        self.app.conf.broker_transport_options = {
            "prefix": self.prefix,
            "emulator_host": self.environment["PUBSUB_EMULATOR_HOST"],
        }

    @property
    def session(self) -> Session:
        """The test's own session."""
        with self.app.connection_for_write() as connection:
            connection.ensure_connection()
            session: Session = connection.transport.session
            return session

    def close(self) -> None:
        """Close the app and its session."""
        # A result that is freed later has nothing to tell Redis, which is gone by then (rpc://
        # has no such set).
        consumer: Any = self.app.backend.result_consumer
        getattr(consumer, "subscribed_to", set()).clear()
        self.session.close()
        self.app.close()
        gc.collect()  # dropped connections, while the warning of them is ignored

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task by its short name."""
        return self.app.send_task(f"plain.{task}", args, **options)

    def read_notes(self) -> list[str]:
        """Return what the task ``note`` has written."""
        return read_lines(Path(self.environment["RECORD"]))

    def child(self, *arguments: str, log: str) -> Child:
        """Start ``celery -A plain ARGUMENTS``."""
        return Child(
            ["celery", "-A", "plain", *arguments],
            environment=os.environ | self.environment,
            log=self.folder / log,
            cwd=self.folder,
        )

    @contextmanager
    def worker(self, name: str, *arguments: str) -> Iterator[Child]:
        """Run a worker for the block; it is ready when the block begins."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)  # an earlier worker of this name was ready, this one is not yet
        default = ["worker", "-n", f"{name}@%h", "--loglevel", "INFO", "--concurrency", "2"]
        with self.child(*default, *arguments, log=log.name) as child:
            try:
                wait_until(lambda: " ready" in log.read_text(), what="the worker")
                yield child
            except BaseException:
                print(log.read_text()[-6000:])  # noqa: T201 - pytest shows it with the failure
                raise


@pytest.fixture(
    scope="module", params=["ours", pytest.param("google", marks=pytest.mark.google_emulator)]
)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plain]:
    """The app on each emulator; nothing runs yet."""
    name = "our_emulator" if request.param == "ours" else "google_emulator"
    folder = tmp_path_factory.mktemp("plain")
    (folder / "plain.py").write_text(APP)
    prefix = unique("plain") + "."
    with run_valkey() as valkey:
        made = Plain(
            folder,
            {
                "PUBSUB_EMULATOR_HOST": request.getfixturevalue(name),
                "BROKER": "pubsub://test-project",
                "BACKEND": valkey.url.replace("unix:", "redis+socket:"),
                "PREFIX": prefix,
                "RECORD": str(folder / "record.txt"),
            },
            prefix,
            request.param,
        )
        try:
            yield made
        finally:
            made.close()


@contextmanager
def second_app(plain: Plain, **environment: str) -> Iterator[Plain]:
    """The same app with another prefix: a second app on the project.

    ``MORE`` is JSON of settings for its workers.
    """
    prefix = unique("second") + "."
    second = Plain(
        plain.folder,
        plain.environment
        | {"PREFIX": prefix, "RECORD": str(plain.folder / f"{prefix}txt")}
        | environment,
        prefix,
        plain.emulator,
    )
    try:
        yield second
    finally:
        second.close()


@pytest.fixture(scope="module")
def worker(plain: Plain) -> Iterator[Child]:
    """A worker with Celery's default pool (prefork, fork), shared by the module."""
    with ExitStack() as stack:
        yield stack.enter_context(plain.worker("shared"))
