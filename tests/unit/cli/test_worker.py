"""The command lines of `convotic worker`, and when the supervisor restarts a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from convotic_celery.cli.supervisor import Supervisor
from convotic_celery.cli.worker import worker_commands
from tests.support.waiting import PATIENCE, wait_until

#: Runs commands under the supervisor: its own process, for it owns the signals.
RUN = """
import asyncio, sys
from convotic_celery.cli.supervisor import Supervisor
commands = [[sys.executable, "-c", source] for source in sys.argv[2:]]
sys.exit(asyncio.run(Supervisor(commands, well_after_seconds=float(sys.argv[1])).run()))
"""

#: A process that notes its number and waits for a signal, as a worker does.
WAIT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # or it might come just before the wait
open("started", "a").write(f"{os.getpid()}\\n")
signal.sigwait([signal.SIGTERM])
"""


def supervise(*sources: str, folder: Path, well_after_seconds: float = 30) -> subprocess.Popen[str]:
    """Start a supervisor of Python sources."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(well_after_seconds), *sources],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_pids(folder: Path) -> list[int]:
    """Return the processes that have started, in order."""
    path = folder / "started"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_one_process_has_celerys_name() -> None:
    """Options go to Celery as they are."""
    (command,) = worker_commands(1, ["--loglevel", "INFO", "-Qorders.new", "-c", "4"])

    at = command.index("worker")
    assert command[at:] == [
        *("worker", "-n", "celery@%h", "--loglevel", "INFO", "-Qorders.new", "-c", "4")
    ]


@pytest.mark.parametrize("option", [["-n", "shop@%h"], ["-nshop@%h"], ["--hostname=shop@%h"]])
def test_many_processes_have_a_number_in_their_names(option: list[str]) -> None:
    """Two workers of one name would be one to Celery."""
    commands = worker_commands(2, [*option, "-P", "solo"])

    assert [command[command.index("-n") + 1 :] for command in commands] == [
        ["shop1@%h", "-P", "solo"],
        ["shop2@%h", "-P", "solo"],
    ]


def test_a_killed_process_is_started_again_and_sigterm_ends_all(tmp_path: Path) -> None:
    """At once the first time; the exit code is 0 when all have ended in order."""
    with supervise(WAIT, WAIT, folder=tmp_path) as supervisor:
        wait_until(lambda: len(read_pids(tmp_path)) == 2)
        os.kill(read_pids(tmp_path)[0], signal.SIGKILL)
        wait_until(lambda: len(read_pids(tmp_path)) == 3)
        supervisor.terminate()

        assert "was killed by signal 9" in supervisor.communicate(timeout=PATIENCE)[1]

    assert supervisor.returncode == 0
    for pid in read_pids(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_dies_again_and_again_is_started_ever_later(tmp_path: Path) -> None:
    """At once, after a second, after two."""
    source = "import os; os.kill(os.getpid(), 9)"
    with supervise(source, folder=tmp_path) as supervisor:
        assert supervisor.stderr is not None
        waits = [supervisor.stderr.readline().split()[-2] for _ in range(3)]
        supervisor.terminate()
        supervisor.communicate(timeout=PATIENCE)

    assert waits == ["0", "1", "2"]


def test_an_error_at_the_start_ends_all(tmp_path: Path) -> None:
    """A wrong option or setting is reported by the first process, once; its exit code is ours."""
    with supervise(WAIT, "import sys; sys.exit(2)", folder=tmp_path) as supervisor:
        assert supervisor.communicate(timeout=PATIENCE)[1] == ""

    assert supervisor.returncode == 2


def test_an_error_later_is_a_death_like_any(tmp_path: Path) -> None:
    """Once a process has been well, an exit code is no reason to end."""
    with supervise("import sys; sys.exit(2)", folder=tmp_path, well_after_seconds=0) as supervisor:
        assert supervisor.stderr is not None
        line = supervisor.stderr.readline()
        supervisor.terminate()
        supervisor.communicate(timeout=PATIENCE)

    assert "ended with exit code 2; starting it again in 0 s" in line


def test_one_that_has_just_ended_keeps_no_signal_from_the_others() -> None:
    """Two that fail together, say: the supervisor ended of it, and left the others running."""
    sent: list[signal.Signals] = []

    def refuse(_: signal.Signals) -> None:
        raise ProcessLookupError

    supervisor: Any = Supervisor([])
    supervisor._running = [SimpleNamespace(send_signal=each) for each in (refuse, sent.append)]

    supervisor._pass_on(signal.SIGTERM)

    assert sent == [signal.SIGTERM]


def test_what_was_told_to_end_stays_ended(tmp_path: Path) -> None:
    """Exit code 0 is an order that was carried out; without processes left the supervisor ends."""
    with supervise("pass", "pass", folder=tmp_path) as supervisor:
        assert supervisor.communicate(timeout=PATIENCE)[1] == ""

    assert supervisor.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of that")
def test_a_killed_supervisor_takes_its_processes_along(tmp_path: Path) -> None:
    """They end as SIGTERM ends them."""
    with supervise(WAIT, folder=tmp_path) as supervisor:
        (pid,) = wait_until(lambda: read_pids(tmp_path))
        supervisor.kill()

    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Say whether a process does anything; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
