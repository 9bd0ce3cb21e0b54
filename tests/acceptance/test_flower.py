"""Flower over ``pubsub://``, as a person sees it in a browser."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver

from convotic_celery.cli.demo.child import Child
from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.browser import open_browser, page_text
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until


@contextmanager
def run_flower(stage: Stage, **environment: str) -> Iterator[str]:
    """Run ``celery flower`` as the README says; yield its address once it answers."""
    port = free_port()
    log = stage.folder / "flower.log"
    child = Child(
        ["celery", "-A", "convotic_celery", "flower", f"--port={port}", "--address=127.0.0.1"],
        environment=os.environ
        | stage.environment
        | {"FLOWER_UNAUTHENTICATED_API": "true"}
        | environment,
        log=log,
        cwd=stage.folder,
    )
    with child:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), what="Flower")
        try:
            yield url
        except BaseException:
            print(log.read_text()[-4000:])  # noqa: T201 - pytest shows it with the failure
            raise


def answers(url: str) -> bool:
    """Say whether the start page comes."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it wants a login
    except (OSError, urllib.error.URLError):
        return False


def read_json(url: str) -> Any:
    """Return what Flower's API answers."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a window."""
    with open_browser() as started:
        yield started


class Pages:
    """Flower's pages, as text."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self._browser = browser
        self._url = url

    def read(self, path: str) -> str:
        """Open a page and return the text that is on it, also what it asks for by itself."""
        self._browser.get(self._url + path)
        idle = "return !window.jQuery || !jQuery.active"
        wait_until(lambda: self._browser.execute_script(idle), what=f"all of {path}")
        return page_text(self._browser)

    def wait_for(self, path: str, *texts: str) -> str:
        """Open a page again and again until all texts are on it."""
        page = ""

        def has_all() -> bool:
            nonlocal page
            page = self.read(path)
            return all(text in page for text in texts)

        try:
            wait_until(has_all, what=f"{texts} on {path}")
        except AssertionError:
            print(page)  # noqa: T201 - pytest shows it with the failure
            raise
        return page

    def read_queues(self) -> dict[str, list[str]]:
        """Return the rows of the Broker page: queue to the cells behind it."""
        self.read("/broker")
        script = """
            const rows = [...document.querySelectorAll("#queue-table tbody tr")];
            return rows.map((row) => [...row.querySelectorAll("td")].map((cell) => cell.innerText));
        """
        rows = self._browser.execute_script(script)
        return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_flower_shows_workers_tasks_retries_and_queues(
    embedded_stage: Stage, browser: webdriver.Chrome
) -> None:
    """Worker online, task with args and state, RETRY with its exception, depths of all queues."""
    stage = embedded_stage
    # It waits for its retry as long as anybody looks.
    stage.environment["CONVOTIC_HANDLER_OPTIONS"] = json.dumps({TOPIC: {"ack_deadline": 600}})
    with stage.worker() as worker, run_flower(stage) as url:
        pages = Pages(browser, url)
        pages.wait_for("/workers", "celery@", "Online")
        (name,) = wait_until(lambda: read_json(f"{url}/api/workers"))

        stage.publish_json({"id": "good-one"})
        pages.wait_for("/tasks", QUEUE, "SUCCESS")
        (done_id,) = read_json(f"{url}/api/tasks?state=SUCCESS")
        pages.wait_for(f"/task/{done_id}", "SUCCESS", "good-one")
        stage.publish_json({"id": "bad-one", "fail": True})
        pages.wait_for("/tasks", "RETRY")
        (retried_id,) = read_json(f"{url}/api/tasks?state=RETRY")
        pages.wait_for(f"/task/{retried_id}", "RETRY", "this order always fails", "bad-one")
        pages.wait_for(f"/worker/{name}", name, "Pool")

        stage.publish(b"not json")
        wait_until(
            lambda: pages.read_queues().get(f"{QUEUE}.dead-letter", [""])[0] == "1",
            what="one dead letter on the Broker page",
        )
        # The failing one waits for its retry; that of the dead letter may not be acknowledged yet.
        wait_until(lambda: pages.read_queues()[QUEUE][0] in ("0", "1"), what="one message at most")
        assert "celery" in pages.read_queues()
        lengths = read_json(f"{url}/api/queues/length")["active_queues"]
        assert {"name": f"{QUEUE}.dead-letter", "messages": 1}.items() <= next(
            row.items() for row in lengths if row["name"].endswith("shop.dead-letter")
        )
        assert worker.child.is_running


def test_flower_drops_malformed_events_and_says_why_a_task_is_refused(
    embedded_stage: Stage,
) -> None:
    """One line an event and no traceback; a handler's `countdown` is a 400 with the reason.

    `celery events --dump` goes on too.
    """
    stage = embedded_stage
    dump = stage.folder / "dump.log"
    dumper = Child(
        ["celery", "-A", "convotic_celery", "events", "--dump"],
        environment=os.environ | stage.environment,
        log=dump,
        cwd=stage.folder,
    )
    with stage.worker(), run_flower(stage) as url, dumper:
        wait_until(lambda: "heartbeat" in dump.read_text(), what="an event in the dump")
        # Its state is of events: it gets them. The workers themselves are asked.
        wait_until(lambda: read_json(f"{url}/api/workers?status=true"), what="an event in Flower")
        for event in MALFORMED:
            publish_event(stage, event)
        stage.publish_json({"id": "good-one"})
        wait_until(lambda: read_json(f"{url}/api/tasks?state=SUCCESS"), what="the good task")
        log = stage.folder / "flower.log"
        wait_until(lambda: log.read_text().count("is dropped, it can't be ") == len(MALFORMED))
        wait_until(lambda: "task succeeded" in dump.read_text().lower())
        assert dumper.is_running

        status, answer = post(f"{url}/api/task/async-apply/{QUEUE}", {"args": [1], "countdown": 5})

    assert (status, "can't be called with countdown=" in answer) == (400, True)
    assert "Traceback" not in log.read_text() + dump.read_text()
    assert "Failed to capture events" not in log.read_text()


#: The last is well-formed, as far as Celery goes, and nothing that Flower can count.
MALFORMED: list[Any] = [
    {},
    5,
    "no JSON",
    {"type": "worker-heartbeat", "hostname": "x", "timestamp": "soon"},
    {"type": "task-received", "hostname": "x", "timestamp": 1},
    {"type": "task-succeeded", "hostname": "x", "timestamp": 1, "uuid": "u", "clock": "late"},
    {"type": "task-started", "hostname": "x", "timestamp": 1, "uuid": "v", "received": "x"},
]


def publish_event(stage: Stage, event: Any) -> None:
    """Publish to the topic of Celery's events, past everything that checks."""
    envelope = {
        "body": event if isinstance(event, str) else json.dumps(event),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"hostname": "x"},
        "properties": {},
    }
    kind = event.get("type", "worker.x") if isinstance(event, dict) else "worker.x"
    key = kind.replace("-", ".").encode(errors="replace").decode()
    stage.publish(json.dumps(envelope).encode(), topic="celery.events", exchange="celeryev", rk=key)


def post(url: str, body: Any) -> tuple[int, str]:
    """Post JSON; return the status and the text of the answer."""
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
