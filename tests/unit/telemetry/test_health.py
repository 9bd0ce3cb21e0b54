"""What a worker's health says, and what its answers cost."""

# ruff: noqa: ARG002 - probes and sources are asked as the real ones

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from convotic_celery.telemetry import fleet, probes
from convotic_celery.telemetry.fleet import FleetSource, merge_metrics
from convotic_celery.telemetry.health import (
    LOOK_SECONDS,
    STALLS,
    UNREADY,
    Finding,
    Findings,
    Monitor,
)
from convotic_celery.telemetry.server import Answer, TelemetryServer, json_answer
from tests.support.waiting import PATIENCE

DOCUMENT = Path(__file__).parents[3] / "docs" / "health.md"


@dataclass
class Scene:
    """Probes that find what a test wants."""

    stalls: Findings = ()
    unready: Findings = ()
    now: float = 0.0

    def find_stalls(self, now: float) -> Findings:
        return self.stalls

    def find_unready(self, now: float) -> Findings:
        return self.unready


def test_a_worker_is_not_ready_before_it_was_looked_at() -> None:
    """And it is live: a worker that starts must not be restarted."""
    health = Monitor(Scene()).health

    assert health.is_live
    assert not health.is_ready


def test_a_stall_is_named_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An error when it begins, a warning when it is over."""
    scene = Scene(stalls=(Finding("stream-dead", "orders.new.shop"),))
    monitor = Monitor(scene, clock=lambda: scene.now)

    monitor.look()
    monitor.look()
    assert monitor.health.describe(readiness=False) == {
        "status": "stalled",
        "findings": [{"name": "stream-dead", "detail": "orders.new.shop"}],
    }
    scene.stalls = ()
    monitor.look()

    assert monitor.health.is_live
    assert [(each.levelno, each.message) for each in caplog.records] == [
        (logging.ERROR, "The worker is stalled, stream-dead: orders.new.shop"),
        (logging.WARNING, "No longer stalled: stream-dead"),
    ]


def test_what_is_unavailable_makes_a_worker_unready_and_not_dead() -> None:
    """A restart would not help."""
    scene = Scene(unready=(Finding("broker-unavailable", "orders.new.shop: refused"),))
    monitor = Monitor(scene)
    monitor.look()

    health = monitor.health

    assert health.is_live
    assert health.describe(readiness=False) == {"status": "live", "findings": []}
    assert health.describe(readiness=True)["status"] == "not ready"


def test_a_monitor_that_stands_still_is_a_stall_itself() -> None:
    """Its last look counts for a while only."""
    scene = Scene()
    monitor = Monitor(scene, clock=lambda: scene.now)
    monitor.look()
    assert monitor.health.is_live

    scene.now = 9.0

    assert not monitor.health.is_live


def test_every_stall_is_noticed_within_ten_seconds() -> None:
    """How long each lasts before it counts, and the two looks around that."""
    limits = {name: value for name, value in vars(probes).items() if name.endswith("_SECONDS")}

    assert len(limits) > 5
    assert {name for name, value in limits.items() if value + 2 * LOOK_SECONDS > 10} == set()


def test_the_document_names_every_stall_and_reason() -> None:
    """The tables of docs/health.md are those of the code."""
    text = DOCUMENT.read_text()

    for name, meaning in (*STALLS.items(), *UNREADY.items()):
        assert f"| `{name}` | {meaning} |" in text


# -- the server ---------------------------------------------------------------------------


@dataclass
class Fixed:
    """Answers always the same."""

    answers: dict[str, Answer] = field(default_factory=dict)

    def answer(self, path: str, accept: str, query: str = "") -> Answer | None:
        return self.answers.get(path)


LIVE = json_answer(200, {"status": "live", "findings": []})
STALLED = json_answer(503, {"status": "stalled", "findings": [{"name": "hub-stuck"}]})


@pytest.fixture
def server() -> Iterator[TelemetryServer]:
    """A server on a free port."""
    server = TelemetryServer(Fixed({"/livez": LIVE, "/readyz": STALLED}), host="127.0.0.1")
    server.start()
    yield server
    server.stop()


def get(server: TelemetryServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask, on a connection of its own, as probes do."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request(method, path)
    response = connection.getresponse()
    try:
        return response.status, response.read()
    finally:
        connection.close()


def test_paths_are_answered(server: TelemetryServer) -> None:
    """With their status, a query ignored; another path says which there are."""
    assert get(server, "/livez?verbose") == (200, LIVE.body)
    assert get(server, "/readyz") == (503, STALLED.body)
    assert get(server, "/livez", "HEAD") == (200, b"")
    assert json.loads(get(server, "/")[1])["paths"] == ["/livez", "/readyz", "/metrics"]


def test_an_answer_costs_less_than_a_millisecond(server: TelemetryServer) -> None:
    """Of the processor, on a machine of today: the best of five tries, with its client's part.

    The bound is for a slow machine, and for threads that other tests have left in this process.
    """

    def cost() -> float:
        began = time.process_time()
        for _ in range(50):
            get(server, "/livez")
        return (time.process_time() - began) / 50

    assert min(cost() for _ in range(5)) < 0.008


def test_a_client_that_says_nothing_keeps_nobody_waiting(server: TelemetryServer) -> None:
    """Each connection has a thread of its own."""
    silent = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    silent.connect()
    try:
        assert get(server, "/livez")[0] == 200
    finally:
        silent.close()


# -- several workers ----------------------------------------------------------------------


@pytest.fixture
def patient_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may take its time: what is asked here is what its answer becomes."""
    monkeypatch.setattr(fleet, "_ANSWER_SECONDS", PATIENCE)


@pytest.mark.usefixtures("patient_fleet")
def test_several_workers_have_one_answer(tmp_path: Path) -> None:
    """Each finding says whose it is; one that does not run is starting."""
    one, two = tmp_path / "1.sock", tmp_path / "2.sock"
    server = TelemetryServer(Fixed({"/livez": STALLED, "/readyz": LIVE}), path=one)
    server.start()
    try:
        both = FleetSource([one, two])
        live, ready = both.answer("/livez", ""), both.answer("/readyz", "")
    finally:
        server.stop()

    assert live is not None
    assert ready is not None
    assert live.status == ready.status == 503
    assert json.loads(live.body)["findings"] == [{"worker": 1, "name": "hub-stuck"}]
    assert [each["worker"] for each in json.loads(ready.body)["findings"]] == [2]
    assert not one.exists()


@pytest.mark.usefixtures("patient_fleet")
def test_a_worker_that_ends_while_it_answers_does_not_run(tmp_path: Path) -> None:
    """Half an answer of one worker costs nobody the answers of the others."""
    path = tmp_path / "1.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer_half() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

        half = threading.Thread(target=answer_half)
        half.start()
        answer = FleetSource([path]).answer("/readyz", "")
        half.join()

    assert answer is not None
    assert [each["name"] for each in json.loads(answer.body)["findings"]] == ["starting"]


def test_metrics_of_several_workers_have_each_family_once() -> None:
    """Header, then the samples of all; one end."""
    text = '# HELP a A.\n# TYPE a gauge\na{{hostname="{0}"}} 1\n# EOF\n'

    assert merge_metrics([text.format("one"), text.format("two")]) == (
        '# HELP a A.\n# TYPE a gauge\na{hostname="one"} 1\na{hostname="two"} 1\n# EOF\n'
    )
