"""Remote control, events and what they leave behind: one subscription a process, then none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from kombu import Connection, Queue
from kombu.common import Broadcast
from kombu.utils.uuid import uuid

from convotic_pubsub.celery.envelope import EnvelopePolicy
from convotic_pubsub.celery.process_slots import ProcessSlot, host_name
from convotic_pubsub.errors import PublishError
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import QueueSpec
from tests.integration.celery.conftest import second_app
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_celery.cli.demo.child import Child
    from tests.integration.celery.conftest import Plain


def control_subscriptions(plain: Plain) -> set[str]:
    """Return the control subscriptions that exist now."""
    names = plain.session.resources.list_subscriptions(f"{plain.prefix}celery.control")
    return {name for name in names if "celery.control." in name}


def inspect_ping(plain: Plain, count: int) -> None:
    """Run ``celery inspect ping`` so many times, four at a time, and have the one worker answer."""
    command = [sys.executable, "-m", "celery", "-A", "plain", "inspect"]
    command += ["-d", f"shared@{socket.gethostname()}", "-t", str(PATIENCE), "ping"]
    environment = os.environ | plain.environment
    left = count
    while left:
        batch = [
            subprocess.Popen(
                command, cwd=plain.folder, env=environment, stdout=subprocess.PIPE, text=True
            )
            for _ in range(min(4, left))
        ]
        left -= len(batch)
        for process in batch:
            output = process.communicate(timeout=2 * PATIENCE)[0]
            assert "pong" in output, output


def test_pings_leave_no_subscription_behind(plain: Plain, worker: object) -> None:
    """20 from the command line, 1,000 in one process: then the worker's and the test's are left.

    Fewer on Google's emulator, which takes a tenth of a second for each.
    """
    del worker
    commands, count = (20, 1000) if plain.emulator == "ours" else (4, 100)
    plain.app.control.ping(timeout=PATIENCE, limit=1)
    before = control_subscriptions(plain)

    inspect_ping(plain, commands)
    with plain.app.connection_for_write() as connection:
        for _ in range(count):
            (reply,) = plain.app.control.ping(timeout=PATIENCE, limit=1, connection=connection)
            assert next(iter(reply.values())) == {"ok": "pong"}

    assert control_subscriptions(plain) <= before


def find_server(address: str) -> int:
    """Return the id of our emulator's process that listens there."""
    port = int(address.rpartition(":")[2])
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "convotic_emulator" in process.cmdline() and any(
                each.laddr.port == port and each.status == psutil.CONN_LISTEN
                for each in process.net_connections()
            ):
                return process.pid
    raise AssertionError(f"nobody listens on {address}")


def seconds_without_processor(pids: list[int]) -> float:
    """Return for how long the threads of processes could have run, and had no processor."""
    nanoseconds = 0
    for pid in pids:
        for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                nanoseconds += int(file.read_text().split()[1])
    return nanoseconds / 1e9


# Google's emulator answers a Pull that follows another some 50 ms late.
@pytest.mark.parametrize("plain", ["ours"], indirect=True)
def test_each_workers_answer_comes_within_200_ms(plain: Plain, worker: Child) -> None:
    """The later one of two workers' answers, to each question of a page of Flower: the median.

    Less the time for which those who take part wait for a processor, which others have.
    """
    clock = plain.session.clock
    with plain.worker("second") as second:
        wait_until(lambda: len(plain.app.control.ping(timeout=2)) == 2)
        server = find_server(plain.environment["PUBSUB_EMULATOR_HOST"])
        pids = [os.getpid(), server, worker.pid, second.pid]
        for question in ("ping", "stats", "active_queues", "registered", "scheduled", "conf"):
            ask = getattr(plain.app.control.inspect(timeout=PATIENCE, limit=2), question)

            def is_soon(ask: Callable[[], Any] = ask) -> bool:
                seconds: list[float] = []
                for _ in range(9):
                    start, waited = clock(), seconds_without_processor(pids)
                    answers = ask()
                    waited = seconds_without_processor(pids) - waited
                    seconds.append(clock() - start - waited)
                    assert len(answers) == 2
                return sorted(seconds)[4] < 0.2

            wait_until(is_soon, what=f"an answer to {question} within 200 ms")


def test_two_workers_find_each_other(plain: Plain, worker: object) -> None:
    """Mingle: a worker that starts hears of those that run."""
    del worker

    def has_heard() -> bool:
        with plain.worker("second"):
            log = (plain.folder / "second.log").read_text()
            wait_until(lambda: len(plain.app.control.ping(timeout=2)) == 2)
        return "mingle: sync with 1 nodes" in log

    wait_until(has_heard)  # Celery's worker waits for a second, which a busy machine may take


def test_a_broadcast_reaches_every_worker(plain: Plain, worker: object) -> None:
    """A ``Broadcast`` queue is a fanout: both workers run the task."""
    del worker
    with plain.worker("second"):
        plain.app.send_task("plain.note", ("hello",), queue=Broadcast("news"))

        wait_until(lambda: len(plain.read_notes()) == 2)

    # Written by children of two parents.
    assert len({line.split()[0] for line in plain.read_notes()}) == 2


def test_a_queue_is_paused_and_resumed(plain: Plain, worker: object) -> None:
    """``cancel_consumer`` and ``add_consumer`` on a running worker; nothing is lost meanwhile."""
    del worker
    answer: Any = {"reply": True, "timeout": PATIENCE, "limit": 1}
    assert plain.app.control.cancel_consumer("celery", **answer)
    waiting = plain.send("add", 20, 22)
    (queues,) = plain.app.control.inspect(timeout=PATIENCE, limit=1).active_queues().values()
    assert "celery" not in [queue["name"] for queue in queues]
    assert waiting.state == "PENDING"

    assert plain.app.control.add_consumer("celery", **answer)

    assert waiting.get(timeout=PATIENCE) == 42


def test_a_killed_workers_subscription_is_taken_over(plain: Plain, worker: object) -> None:
    """kill -9 leaves one behind; the next process of this host uses it and removes it."""
    del worker
    inspect_ping(plain, 1)  # removes what an earlier test may have left
    before = control_subscriptions(plain)
    with plain.worker("doomed") as doomed:
        mine = control_subscriptions(plain) - before
        doomed.kill()
    assert len(mine) == 1, (before, control_subscriptions(plain))
    assert control_subscriptions(plain) == before | mine

    inspect_ping(plain, 1)

    assert control_subscriptions(plain) == before


def test_what_no_process_of_this_host_owns_is_swept(plain: Plain) -> None:
    """A process that starts deletes subscriptions whose lock is free, and no other."""
    scope = f"{plain.session.broker.address}/test-project/{plain.prefix}/control"
    family = f"{plain.prefix}celery.control.{host_name()}"
    held = ProcessSlot.take(scope, 700)
    assert held is not None
    for name in (f"{family}.700", f"{family}.701", f"{plain.prefix}celery.control.elsewhere.0"):
        spec = QueueSpec(
            queue=name,
            topic=f"{plain.prefix}celery.control",
            subscription=name,
            policy=EnvelopePolicy(),
            expiration_seconds=86_400,
        )
        plain.session.resources.ensure(spec, ephemeral=True)

    other: Any = Connection(
        "pubsub://test-project",
        transport_options={
            **plain.app.conf.broker_transport_options,
            "publish_timeout_seconds": 30,  # a session of its own
        },
    )
    with other:
        Queue(f"reply.{uuid()}", auto_delete=True, channel=other.default_channel).declare()
        left = control_subscriptions(plain)
        other.transport.session.close()
        after = control_subscriptions(plain)
    held.release()

    assert {f"{family}.700", f"{plain.prefix}celery.control.elsewhere.0"} <= left
    assert f"{family}.701" not in left
    assert len(left - after) == 1  # the session's own, deleted as it closed


def test_purge_ends_at_zero(plain: Plain) -> None:
    """``celery purge`` says how many messages it removed, of this app's queue only."""
    with plain.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_declare("aside")
        for number in range(7):
            channel.basic_publish(channel.prepare_message(str(number)), "", "aside")

        assert channel.queue_purge("aside") == 7
        assert channel.queue_purge("aside") == 0


def test_a_host_has_one_name_in_all_its_processes() -> None:
    """The name is that of the folder with the locks, so that two who share it share slots."""
    script = "from convotic_pubsub.celery.process_slots import host_name; print(host_name())"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout

    assert output.strip() == host_name()


#: Events that name no type, lack fields, or are of the wrong one.
EVENTS: list[tuple[str, Any]] = [
    ("worker.x", {}),
    ("worker.heartbeat", {"type": "worker-heartbeat"}),
    ("worker.heartbeat", {"type": "worker-heartbeat", "hostname": 5, "timestamp": "soon"}),
    ("worker.elect", {"type": "worker-elect", "id": [], "clock": "x"}),
    ("worker.elect.ack", {"type": "worker-elect-ack"}),
    ("worker.online", []),
    ("worker.offline", 5),
]
#: Orders whose arguments are wrong.
ORDERS: list[tuple[str, Any]] = [
    ("add_consumer", {"queue": 5}),
    ("add_consumer", {"queue": ["a"]}),
    ("add_consumer", {"queue": "strange", "exchange_type": "nonsense"}),
    ("add_consumer", {"queue": "strange", "exchange": 5, "routing_key": {}}),
    ("add_consumer", {}),
    ("cancel_consumer", {"queue": []}),
    ("cancel_consumer", {"queue": None}),
    ("election", {"id": [], "topic": 5}),
    ("pool_grow", {"n": "many"}),
    ("time_limit", {"task_name": 5, "soft": "x"}),
    ("revoke", {"task_id": {"a": 1}}),
    ("no_such_order", {}),
]

#: No orders at all.
BODIES: list[Any] = [[], 5, {"method": 5}, {"method": "ping", "arguments": 5}, {"arguments": {}}]


def send_raw(plain: Plain, topic: str, exchange: str, body: Any, key: str = "") -> None:
    """Publish to a control topic, past everything that checks."""
    envelope = {
        "body": json.dumps(body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"hostname": "x", "clock": 1},
        "properties": {},
    }
    attributes = {"exchange": exchange, **({"rk": key} if key else {})}
    message = OutgoingMessage(
        f"{plain.prefix}celery.{topic}", json.dumps(envelope).encode(), attributes
    )
    plain.session.publish(message).result(PATIENCE)


def test_a_worker_outlives_malformed_events_and_orders(plain: Plain) -> None:
    """Each is logged and dropped: the worker answers, and its consumer was not restarted."""
    with second_app(plain) as app, app.worker("tough"):
        for key, event in EVENTS:
            send_raw(app, "events", "celeryev", event, key)
        for name, arguments in ORDERS:
            send_raw(app, "control", "celery.pidbox", {"method": name, "arguments": arguments})
        for body in BODIES:
            send_raw(app, "control", "celery.pidbox", body)
        data = b'{"body": 5, "headers": {}, "properties": []}'
        attributes = {"exchange": "celeryev", "rk": "worker.x"}
        for topic in ("events", "control"):
            message = OutgoingMessage(f"{app.prefix}celery.{topic}", data, attributes)
            app.session.publish(message).result(PATIENCE)

        log = plain.folder / "tough.log"
        wait_until(lambda: "'no_such_order'" in log.read_text())
        assert app.send("add", 2, 3).get(timeout=PATIENCE) == 5
        assert app.app.control.ping(timeout=PATIENCE, limit=1)

    assert "Unrecoverable" not in log.read_text()
    assert "Connection to broker lost" not in log.read_text()


def test_an_order_that_comes_by_the_events_topic_is_not_obeyed(plain: Plain) -> None:
    """Who may publish events must not be able to stop a worker, whatever the attributes say."""
    order = {"method": "shutdown", "arguments": {}}
    with second_app(plain) as app, app.worker("deaf"):
        send_raw(app, "events", "celery.pidbox", order)
        send_raw(app, "events", "", order, "deaf.celery.pidbox")

        assert app.send("add", 2, 3).get(timeout=PATIENCE) == 5
        assert app.app.control.ping(timeout=PATIENCE, limit=1)
        assert "Got shutdown from remote" not in (plain.folder / "deaf.log").read_text()


def test_a_worker_without_remote_control_obeys_nobody(plain: Plain) -> None:
    """``worker_enable_remote_control=False``, gossip and mingle off: no control subscription."""
    more = {"worker_enable_remote_control": False}
    with (
        second_app(plain, MORE=json.dumps(more)) as app,
        app.worker("locked", "--without-gossip", "--without-mingle"),
    ):
        assert app.send("add", 2, 3).get(timeout=PATIENCE) == 5
        assert app.app.control.ping(timeout=1) == []


def test_an_order_to_consume_binds_the_queue_for_every_publisher(plain: Plain) -> None:
    """``celery control add_consumer`` with an exchange: what is sent there runs."""
    with second_app(plain) as app, app.worker("more"):
        app.app.control.add_consumer(
            "pictures", exchange="x", exchange_type="topic", routing_key="img.#", reply=True
        )

        def send() -> Any:
            with suppress(PublishError):  # nobody is bound yet
                return app.app.send_task(
                    "plain.add", (2, 3), exchange="x", routing_key="img.png", retry=False
                )
            return None

        assert wait_until(send).get(timeout=PATIENCE) == 5
