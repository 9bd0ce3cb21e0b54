"""Celery's remote control on handlers: a real worker, the embedded broker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stage import Stage, Worker
from tests.support.waiting import PATIENCE, never, wait_until

#: Arguments of a command that waits for the one worker's answer, however busy the machine is.
ANSWERED = ("-d", f"celery@{socket.gethostname()}", "-t", str(PATIENCE))


def celery(stage: Stage, *arguments: str) -> str:
    """Run a `celery -A convotic_celery …` command and return what it prints."""
    done = subprocess.run(
        [Path(sys.executable).with_name("celery"), "-A", "convotic_celery", *arguments],
        cwd=stage.folder,
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inspect(stage: Stage, what: str) -> Any:
    """Return the only worker's reply."""
    replies = json.loads(celery(stage, "inspect", *ANSWERED, "--json", what))
    (reply,) = replies.values()
    return reply


def stats_once_counted(stage: Stage, handler: str) -> Any:
    """Return the worker's statistics; None before a run of the handler counts as ended."""
    stats = inspect(stage, "stats")
    is_counted = handler in stats["convotic"]["outcomes"] and not stats["pool"]["running"]
    return stats if is_counted else None


def test_revoking_a_running_handler_cancels_it(stage: Stage) -> None:
    """terminate ends the coroutine; its message is acknowledged and not delivered again."""
    with stage.worker():
        stage.publish_json(600, topic="probe.slow")
        wait_until(lambda: stage.read_runs("slow"))
        (active,) = inspect(stage, "active")
        celery(stage, "control", *ANSWERED, "terminate", "SIGTERM", active["id"])
        wait_until(lambda: stage.read_runs("cancelled"))
        stage.publish_json(1, topic="probe.async")
        wait_until(lambda: stage.read_runs("async"))
        stats = wait_until(lambda: stats_once_counted(stage, "probe.async.probe"))
        conf = inspect(stage, "conf")

    assert active["args"] == "600"
    assert "probe.slow.probe" in stats["broker"]["transport_options"]["queues"]
    assert conf["worker_pool_start_method"] == "spawn"
    assert stats["convotic"]["outcomes"]["probe.slow.probe"] == {"revoked": 1}
    assert stats["convotic"]["outcomes"]["probe.async.probe"] == {"succeeded": 1}
    assert len(stage.read_runs("slow")) == 1


def test_calling_a_handler_from_the_command_line(stage: Stage) -> None:
    """`celery call` publishes a raw message that this handler gets."""
    with stage.worker():
        task_id = celery(stage, "call", "probe.async.probe", "--args", '[{"id": 7}]').strip()
        (run,) = wait_until(lambda: stage.read_runs("async"))

    assert run["data"] == {"id": 7}
    assert run["task"] == task_id


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_stops_now(stage: Stage, second: signal.Signals) -> None:
    """SIGTERM, then a second signal: the run is cancelled and its message handed back, unfailed."""
    with stage.worker() as worker:
        stage.publish_json(50, topic="probe.slow")
        wait_until(lambda: stage.read_runs("slow"))
        worker.child.terminate()
        wait_until(lambda: "Warm shutdown" in worker.read_log())
        # A SIGTERM within a second of the first counts as the same one.
        never(lambda: not worker.child.is_running, for_=1.5)
        os.kill(worker.child._process.pid, second)
        worker.child.wait(PATIENCE)
    with stage.worker():
        wait_until(lambda: len(stage.read_runs("slow")) == 2)

    assert [run["attempt"] for run in stage.read_runs("slow")] == [1, 1]


def test_an_unknown_queue_is_refused(stage: Stage) -> None:
    """`-Q` with a slip of the pen ends at once, with the names there are."""
    with stage.worker("-Q", "probe.asinc.probe", ready=False) as worker:
        assert worker.child.wait(PATIENCE) == 2

    log = worker.read_log()
    assert "probe.async.probe" in log
    assert "Traceback" not in log


def test_the_worker_says_what_it_consumes(stage: Stage) -> None:
    """A table of handlers, options and dead-letter topics, once, and no other."""
    selected = "probe.async.probe,probe.plain.probe"
    with stage.worker("-Q", selected, CONVOTIC_LOG_FORMAT="text") as worker:
        log = worker.read_log()

    assert re.search(
        r"^  probe\.async\.probe +8 .* probe\.async\.probe\.dead-letter$", log, re.MULTILINE
    )
    assert log.count("probe.plain.probe ") == 1
    assert "probe.slow.probe" not in log


#: Tells in the log which thread takes each handler's messages; one handler has a rate limit.
TAKERS = '''
"""Handlers, and who takes their messages."""

import logging
import threading

from celery import signals

from convotic_celery import ConvoticModule

module = ConvoticModule(name="taken", version="1.0.0")


@signals.task_received.connect
def tell(request, **_):
    logging.getLogger("taken").warning("%s by %s", request.name, threading.current_thread().name)


@module.worker("taken.async")
async def run_async(message, ctx) -> None:
    pass


@module.worker("taken.limited", rate_limit="100/s")
async def run_limited(message, ctx) -> None:
    pass


@module.worker("taken.plain")
def run_plain(message, ctx) -> None:
    pass
'''


def take(stage: Stage, worker: Worker, name: str) -> str:
    """Publish to a handler; return the name of the thread that has taken the message."""
    count = worker.read_log().count(f"taken.{name}.taken by ")
    stage.publish_json(1, topic=f"taken.{name}")

    def takers() -> list[str]:
        return re.findall(rf"taken\.{name}\.taken by ([\w-]+)", worker.read_log())[count:]

    [taker] = wait_until(takers)
    return str(taker)


def test_the_pool_takes_async_handlers_messages(stage: Stage) -> None:
    """Past Celery's loop, which has the others, and those that may have to wait for a timer."""
    (stage.folder / "modules" / "taken.py").write_text(TAKERS)
    with stage.worker() as worker:
        assert take(stage, worker, "async") == "convotic-pool"
        assert take(stage, worker, "plain") == "MainThread"
        assert take(stage, worker, "limited") == "MainThread"

        celery(stage, "control", *ANSWERED, "rate_limit", "taken.async.taken", "100/s")
        assert take(stage, worker, "async") == "MainThread"
        celery(stage, "control", *ANSWERED, "rate_limit", "taken.async.taken", "0")
        assert take(stage, worker, "async") == "convotic-pool"


def test_a_bound_of_all_handlers_together_is_kept_by_one_thread(stage: Stage) -> None:
    """``-c``: Celery's prefetch count, which two threads could exceed."""
    (stage.folder / "modules" / "taken.py").write_text(TAKERS)
    with stage.worker("-c", "2") as worker:
        assert take(stage, worker, "async") == "MainThread"
