"""Web servers with several processes: each publishes safely, forked before the first or after."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from convotic_celery.cli.demo.child import Child
from convotic_pubsub import session_for
from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.session import Session
from tests.support.ports import free_port
from tests.support.pubsub import pull, unique
from tests.support.waiting import PATIENCE, wait_until

#: Written to ``web.py``: a plain Celery app and Convotic's ``publish`` in one web application.
WEB = """
import asyncio
import os

from celery import Celery
from convotic_celery import pubsub

celery = Celery("web", broker=os.environ["CONVOTIC_BROKER_URL"])


@celery.task
def note(path):
    pass


def publish(path):
    note.delay(path)
    pubsub.publish("custom.web", data={"path": path})
    return str(os.getpid()).encode()


if os.environ.get("PUBLISH_FIRST"):
    publish("/preloaded")


def wsgi(environ, start_response):
    body = publish(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


async def asgi(scope, receive, send):
    body = await asyncio.to_thread(publish, scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

MODULE = """
from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage

module = ConvoticModule(name="web", version="1.0.0")


@module.worker("custom.web")
async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
    pass
"""

SERVERS = {
    "gunicorn": ("gunicorn --workers 2 --timeout 300 --bind 127.0.0.1:{port} web:wsgi", {}),
    # Both have published before the fork: what gRPC does not survive.
    "gunicorn preloaded": (
        "gunicorn --workers 2 --timeout 300 --preload --bind 127.0.0.1:{port} web:wsgi",
        {"PUBLISH_FIRST": "1"},
    ),
    # Within 5 s each new process had to answer its parent, which ends one that does not.
    "uvicorn": (
        "uvicorn web:asgi --workers 2 --port {port} --lifespan off --timeout-worker-healthcheck 90",
        {},
    ),
}


@pytest.mark.parametrize("server", SERVERS)
def test_each_process_of_a_web_server_publishes(
    server: str, our_emulator: str, tmp_path: Path, data_dir: Path
) -> None:
    """Two processes answer; each request's task and message are there once; they end quietly."""
    project = unique("web")
    command, more = SERVERS[server]
    (tmp_path / "web.py").write_text(WEB)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shop.py").write_text(MODULE)
    environment = {
        "CONVOTIC_DATA_DIR": str(data_dir),
        "CONVOTIC_BROKER_URL": f"pubsub://{project}",
        "PUBSUB_EMULATOR_HOST": our_emulator,
    }
    port = free_port()
    session = session_for(f"pubsub://{project}", {"emulator_host": our_emulator})
    with Child(
        command.format(port=port).split(),
        environment=os.environ | environment | more,
        log=tmp_path / "server.log",
        cwd=tmp_path,
    ) as child:
        try:
            paths = visit_both_processes(f"http://127.0.0.1:{port}", child)
            expected = Counter([*paths, *(["/preloaded"] if more else [])])
            sent = Receiver(session)
            wait_until(lambda: sent.read_tasks() >= expected)
            wait_until(lambda: sent.read_messages() >= expected)
        except BaseException:
            print(child.last_lines(60))  # noqa: T201 - pytest shows it with the failure
            raise
        finally:
            session.close()
        child.terminate()
        child.wait(PATIENCE)

    assert sent.tasks == sent.messages == expected
    assert "Task was destroyed" not in child.last_lines(1000)


def visit_both_processes(url: str, child: Child) -> list[str]:
    """Send requests, some at a time, until two processes have answered; return their paths."""
    paths: list[str] = []
    pids: set[str] = set()

    def visit(client: httpx.Client, path: str) -> str:
        answer = client.get(url + path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def are_both_seen() -> bool:
        new = [f"/{len(paths) + number}" for number in range(4)]
        pids.update(pool.map(partial(visit, client), new))
        paths.extend(new)
        return len(pids) == 2

    def answers() -> bool:
        assert child.is_running
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) == 0

    wait_until(answers, what="the server answers")
    one_request_each = httpx.Limits(max_keepalive_connections=0)
    with (
        httpx.Client(limits=one_request_each, timeout=PATIENCE) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        wait_until(are_both_seen, what="an answer of a second process")
    return paths


@dataclass
class Receiver:
    """What was published, counted by the request's path."""

    session: Session
    #: A request's path by the id of its message: one whose lease has ended comes once more.
    _tasks: dict[str, str] = field(default_factory=dict)
    _messages: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> Counter[str]:
        """How many tasks came of each request."""
        return Counter(self._tasks.values())

    @property
    def messages(self) -> Counter[str]:
        """How many messages came of each request."""
        return Counter(self._messages.values())

    def read_tasks(self) -> Counter[str]:
        """Count the tasks that have come."""
        for received in pull(self.session, "celery"):
            (path,), *_ = json.loads(decode_envelope(received.message.data)["body"])
            self._tasks[received.message.message_id] = path
        return self.tasks

    def read_messages(self) -> Counter[str]:
        """Count the messages that have come."""
        for received in pull(self.session, "custom.web.web"):
            self._messages[received.message.message_id] = json.loads(received.message.data)["path"]
        return self.messages
