"""`/livez` and `/readyz` of real workers: each stall, injected into one, is noticed.

Within ten seconds where the worker has its time: tests/unit/telemetry adds up what that takes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from convotic_celery.cli.demo.child import Child
from tests.acceptance.stage import TOPIC
from tests.support.ports import free_port
from tests.support.proxy import Proxy, run_proxy
from tests.support.waiting import PATIENCE, never, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage, Worker

pytestmark = pytest.mark.long

#: Handlers of the stalls' tests. What stands still does so for longer than anybody looks.
SABOTAGE = """
import asyncio
import json
import os
import time
from pathlib import Path

from billiard.pool import Pool
from celery.signals import worker_ready
from kombu.asynchronous import get_event_loop

from convotic_celery import ConvoticContext, ConvoticModule, SyncConvoticContext, WorkerMessage
from convotic_pubsub.registry import open_sessions

module = ConvoticModule(name="sabotage", version="1.0.0")


@module.worker("sabotage.here", max_retries=0, ack_deadline=60, concurrency=4)
async def here(message: WorkerMessage, ctx: ConvoticContext) -> None:
    what = message.data
    session = open_sessions()[0]
    if what == "handlers-loop-blocked":
        time.sleep(300)
    elif what == "consumer-thread-dead":
        session._io.stop()
    elif what == "consumer-thread-stuck":
        session.post(time.sleep, 300)
    elif what == "stream-dead":
        def end():
            for _, task in session.consumers._pulling.values():
                task.cancel()
        session.post(end)
    elif what == "acknowledgements-unconfirmed":
        async def never(*args, **kwargs):
            await asyncio.Event().wait()
        session.broker.acks.acknowledge = never
    elif what == "hub-stuck":
        get_event_loop().call_soon(time.sleep, 300)


@module.worker("sabotage.plain", max_retries=0, ack_deadline=1, deadline_grace=1, concurrency=2)
def plain(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
    time.sleep(300)


@module.worker("sabotage.leased", max_retries=0, ack_deadline=10)
async def leased(message: WorkerMessage, ctx: ConvoticContext) -> None:
    timer = open_sessions()[0].consumers._timer

    def unhook():
        timer._arm = lambda: None
        if timer._timer is not None:
            timer._timer.cancel()

    open_sessions()[0].post(unhook)
    await asyncio.sleep(9)


@worker_ready.connect
def on_ready(sender, **_):
    pids = Path(os.environ["CONVOTIC_TEST_RECORD"]).with_name("pids.json")
    if os.environ.get("CONVOTIC_TEST_BREAK") == "no replacement":
        Pool._repopulate_pool = lambda *_: None
        pids.write_text(json.dumps([each.pid for each in sender.controller.pool._pool._pool]))
    elif sender.controller.beat is not None:
        pids.write_text(json.dumps([sender.controller.beat.pid]))
"""

#: Keeps a worker from its start until somebody has seen that it has not begun.
LATE = """
import os
import time
from pathlib import Path

from convotic_celery import ConvoticModule

module = ConvoticModule(name="late", version="1.0.0")
while not Path(os.environ["CONVOTIC_TEST_RECORD"]).with_name("seen").exists():
    time.sleep(0.05)
"""


class Said(NamedTuple):
    """An answer."""

    status: int
    found: dict[str, Any]

    @property
    def names(self) -> set[str]:
        return {each["name"] for each in self.found["findings"]}


class Port:
    """A worker's port, as a kubelet sees it."""

    def __init__(self) -> None:
        self.number = free_port()

    def get(self, path: str, *, accept: str = "*/*") -> str:
        request = urllib.request.Request(self._url(path), headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return str(response.read().decode())

    def ask(self, path: str) -> Said:
        Event().wait(0.05)  # the machine has other things to do, too
        try:
            with urllib.request.urlopen(self._url(path), timeout=PATIENCE) as response:
                return Said(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            return Said(error.code, json.load(error))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.number}{path}"


@contextmanager
def healthy_worker(
    stage: Stage, *arguments: str, **environment: str
) -> Iterator[tuple[Worker, Port]]:
    """Run a worker with a port until it is ready and live."""
    (stage.folder / "modules" / "sabotage.py").write_text(SABOTAGE)
    port = Port()
    environment["CONVOTIC_HEALTH_PORT"] = str(port.number)
    stage.environment |= environment
    with stage.worker(*arguments) as worker:
        wait_until(lambda: port.ask("/readyz").status == 200, what="readiness")
        assert port.ask("/livez") == Said(200, {"status": "live", "findings": []})
        yield worker, port


@contextmanager
def worker_behind_proxy(stage: Stage) -> Iterator[tuple[Proxy, Worker, Port]]:
    """Run such a worker whose broker is behind a proxy that can misbehave."""
    with run_proxy(stage.address) as proxy:
        broker = {
            "PUBSUB_EMULATOR_HOST": proxy.address,
            "CONVOTIC_BROKER_URL": f"pubsub://{stage.project}",
        }
        with healthy_worker(stage, **broker) as (worker, port):
            yield proxy, worker, port


def expect_stall(port: Port, name: str) -> None:
    """Wait until the stall is named; the worker is not ready then."""

    def look() -> tuple[Said, Said] | None:
        live, ready = port.ask("/livez"), port.ask("/readyz")
        # Some are over after a while: both answers must be of one that lasts.
        return (live, ready) if name in live.names & port.ask("/livez").names else None

    found = wait_until(look, what=f"stall {name}")
    assert found is not None
    live, ready = found
    assert live.status == ready.status == 503
    assert live.found["status"] == "stalled"


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ("handlers-loop-blocked", "handlers-loop-blocked"),
        ("consumer-thread-dead", "consumer-thread-dead"),
        ("consumer-thread-stuck", "consumer-thread-dead"),
        ("stream-dead", "stream-dead"),
        ("acknowledgements-unconfirmed", "acknowledgements-unconfirmed"),
        ("hub-stuck", "hub-stuck"),
    ],
)
def test_a_stall_is_noticed(embedded_stage: Stage, order: str, name: str) -> None:
    """It is named in the answer."""
    with healthy_worker(embedded_stage) as (worker, port):
        embedded_stage.publish_json(order, topic="sabotage.here")

        expect_stall(port, name)
        worker.child.kill()  # it would not end by itself


def test_slots_held_by_overdue_runs_are_noticed(embedded_stage: Stage) -> None:
    """Two plain runs past their deadline hold both slots of their handler."""
    with healthy_worker(embedded_stage) as (worker, port):
        embedded_stage.publish_json(1, 2, topic="sabotage.plain")

        expect_stall(port, "slots-overdue")

        assert "sabotage.plain.sabotage, 2" in str(port.ask("/livez").found)
        worker.child.kill()  # it would wait for them


def test_leases_that_are_not_renewed_are_noticed(embedded_stage: Stage) -> None:
    """The first renewal is due some seconds after the message came."""
    with healthy_worker(embedded_stage) as (_, port):
        embedded_stage.publish_json(1, topic="sabotage.leased")

        expect_stall(port, "leases-behind")


def test_a_child_that_is_not_replaced_is_noticed(embedded_stage: Stage) -> None:
    """The prefork pool has lost one of its two processes."""
    with healthy_worker(
        embedded_stage, "-P", "prefork", "-c", "2", CONVOTIC_TEST_BREAK="no replacement"
    ) as (_, port):
        os.kill(read_pids(embedded_stage)[0], signal.SIGKILL)

        expect_stall(port, "pool-child-lost")


def test_a_beat_that_does_not_tick_is_noticed(embedded_stage: Stage) -> None:
    """It is the worker's own (-B), and is stopped."""
    with healthy_worker(embedded_stage, "-B") as (_, port):
        (beat,) = read_pids(embedded_stage)
        never(lambda: port.ask("/livez").status != 200, for_=9)
        os.kill(beat, signal.SIGSTOP)
        try:
            expect_stall(port, "beat-not-ticking")
        finally:
            os.kill(beat, signal.SIGCONT)


def test_a_silent_stream_is_noticed_and_then_replaced(embedded_stage: Stage) -> None:
    """Open connections go silent, new ones work."""
    stage = embedded_stage
    with worker_behind_proxy(stage) as (proxy, _, port):
        # The first heartbeat's answer shows that this server answers.
        never(lambda: port.ask("/livez").status != 200, for_=8)
        proxy.silence()

        expect_stall(port, "stream-silent")

        wait_until(lambda: port.ask("/livez").status == 200, what="replacement")


def test_a_black_hole_asks_for_no_restart(embedded_stage: Stage) -> None:
    """Nothing is answered any more: never do three probes fail, ten seconds apart."""
    stage = embedded_stage
    with worker_behind_proxy(stage) as (proxy, _, port):
        # The first heartbeat's answer shows that this server answers.
        never(lambda: port.ask("/livez").status != 200, for_=8)
        stage.publish_json({"id": 1, "slow": 4})
        wait_until(stage.read_runs)
        proxy.pause()
        began, failed = time.monotonic(), 0.0
        while time.monotonic() < began + 50:
            asked = time.monotonic()
            live = port.ask("/livez")
            failed += (time.monotonic() - asked) * (live.status != 200)
        wait_until(lambda: "broker-unavailable" in port.ask("/readyz").names)
        proxy.resume()
        wait_until(lambda: port.ask("/readyz").status == 200, what="readiness")

    assert failed < 20


def test_an_unavailable_store_asks_for_no_restart(embedded_stage: Stage) -> None:
    """The worker is live, and says why it is not ready."""
    stage = embedded_stage
    port = Port()
    stage.environment |= {
        "CONVOTIC_HEALTH_PORT": str(port.number),
        "CONVOTIC_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    with stage.worker():
        wait_until(
            lambda: port.ask("/readyz").names == {"store-unavailable"}, what="store-unavailable"
        )
        assert port.ask("/livez").status == 200


def test_a_worker_that_shuts_down_is_live_and_not_ready(embedded_stage: Stage) -> None:
    """It answers until it has ended."""
    stage = embedded_stage
    stage.environment["CONVOTIC_HANDLER_OPTIONS"] = json.dumps({TOPIC: {"ack_deadline": 600}})
    with healthy_worker(stage) as (worker, port):
        stage.publish_json({"id": 1, "until": "seen"})
        wait_until(stage.read_runs)
        worker.child.terminate()

        wait_until(lambda: "stopping" in port.ask("/readyz").names)
        assert port.ask("/livez").status == 200
        (stage.folder / "seen").touch()
        assert worker.child.wait(PATIENCE) == 0


def test_one_port_answers_for_all_processes(embedded_stage: Stage) -> None:
    """Both workers' metrics; one that is stopped is named."""
    stage, port = embedded_stage, Port()
    (stage.folder / "modules" / "late.py").write_text(LATE)
    with Child(
        ["convotic_celery.cli", "worker", "--processes", "2", "--loglevel", "INFO"],
        environment=os.environ | stage.environment | {"CONVOTIC_HEALTH_PORT": str(port.number)},
        log=stage.folder / "fleet.log",
        cwd=stage.folder,
    ) as fleet:
        assert "starting" in wait_for_answer(port).names
        (stage.folder / "seen").touch()
        wait_until(lambda: port.ask("/readyz").status == 200, what="readiness")
        stage.publish_json(*({"id": number} for number in range(4)))
        wait_until(lambda: {r["data"]["id"] for r in stage.read_runs("end")} == {*range(4)})
        # One that takes its time is left out.
        up = [f'celery_worker_up{{hostname="celery{number}@' for number in (1, 2)]
        wait_until(lambda: all(each in port.get("/metrics") for each in up), what="both workers")
        assert port.get("/metrics").count("# TYPE celery_worker_up") == 1
        workers = psutil.Process(fleet._process.pid).children()
        os.kill(workers[0].pid, signal.SIGSTOP)
        try:
            expect_stall(port, "worker-unresponsive")
        finally:
            os.kill(workers[0].pid, signal.SIGCONT)
        wait_until(lambda: port.ask("/livez").status == 200)


def test_a_taken_port_ends_the_worker_with_one_line(embedded_stage: Stage) -> None:
    """It says which, and what to do."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen()
        number = sock.getsockname()[1]
        with embedded_stage.worker(ready=False, CONVOTIC_HEALTH_PORT=str(number)) as worker:
            assert worker.child.wait(PATIENCE) == 1
            log = worker.read_log()
    assert f"can't listen on 0.0.0.0:{number}" in log
    assert "Traceback" not in log


def wait_for_answer(port: Port) -> Said:
    """Return the first answer that there is."""

    def ask() -> Said | None:
        try:
            return port.ask("/readyz")
        except OSError:
            return None

    said = wait_until(ask, what="an answer")
    assert said is not None
    return said


def read_pids(stage: Stage) -> list[int]:
    """Return the processes that the worker has named."""
    found: list[int] = json.loads((stage.folder / "pids.json").read_text())
    return found
