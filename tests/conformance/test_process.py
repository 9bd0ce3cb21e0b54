"""The server as a process: one a folder, found by all, ended when it is unused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from convotic_emulator import daemon
from tests.conformance.broker import OURS, Broker, bodies
from tests.support.ports import emulator_on_own_port
from tests.support.waiting import PATIENCE, never, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="convotic-process-")) / "data"
    try:
        yield path
    finally:
        daemon.stop(path)
        shutil.rmtree(path.parent)


def kill(folder: Path) -> None:
    """End the folder's server as a crash would."""
    info = daemon.status(folder)
    assert info is not None
    os.kill(info["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.status(folder) is None)


def test_many_callers_get_one_server(folder: Path) -> None:
    """Eight processes start it at once: one address, one process."""
    code = (
        "import sys; from pathlib import Path; from convotic_emulator import daemon;"
        "a = daemon.ensure_running(Path(sys.argv[1]));"
        "print(a, daemon.status(Path(sys.argv[1]))['pid'])"
    )
    command = [sys.executable, "-c", code, str(folder)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: subprocess.check_output(command, text=True), range(8)))

    assert len(set(answers)) == 1


def test_the_folder_is_the_owners_alone(folder: Path) -> None:
    """Mode 0700; the server says where it is, on the loopback interface."""
    address = daemon.ensure_running(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    info = daemon.status(folder)
    assert info is not None
    assert info["address"] == address == f"127.0.0.1:{info['port']}"


def test_a_killed_server_comes_back_on_its_port(folder: Path) -> None:
    """With its data."""
    with emulator_on_own_port(folder):
        address = daemon.ensure_running(folder)
        broker = Broker(OURS, grpc.insecure_channel(address), "p")
        topic = broker.topic()
        subscription = broker.subscription(topic)
        broker.publish(topic, b"x")
        broker.close()
        kill(folder)

    assert daemon.ensure_running(folder) == address

    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    assert bodies(broker.pull(subscription)) == [b"x"]
    broker.close()


def test_a_lack_of_descriptors_is_one_line_and_passes(folder: Path) -> None:
    """Who is connected is served meanwhile; others wait, and are served when there are some."""
    address = daemon.ensure_running(folder)
    info = daemon.status(folder)
    assert info is not None
    broker = Broker(OURS, grpc.insecure_channel(address), "p")
    subscription = broker.subscription(topic := broker.topic())
    used = len(list(Path(f"/proc/{info['pid']}/fd").iterdir()))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(info["pid"], resource.RLIMIT_NOFILE, (used + 5, hard))
    log = folder / daemon.LOG_FILE
    with ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(socket.create_connection(("127.0.0.1", info["port"])))
        wait_until(lambda: "No connection can be accepted" in log.read_text())
        size = log.stat().st_size
        broker.publish(topic, b"meanwhile")
        never(lambda: log.stat().st_size > size, for_=2, what="another line in the log")

    late = Broker(OURS, grpc.insecure_channel(address), "p")
    assert bodies(late.pull(subscription)) == [b"meanwhile"]
    late.close()
    broker.close()


def test_stop_ends_it(folder: Path) -> None:
    """True when it was running, False when not; the lock is free afterwards."""
    daemon.ensure_running(folder)

    assert daemon.stop(folder)

    assert daemon.status(folder) is None
    assert not daemon.stop(folder)


def test_a_second_server_is_refused(folder: Path) -> None:
    """Exit code 1 and a clear sentence; the first goes on."""
    address = daemon.ensure_running(folder)
    command = [sys.executable, "-m", "convotic_emulator", "--data-dir", str(folder)]

    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert second.returncode == 1
    assert second.stderr.count("Another server runs") == 1
    assert daemon.ensure_running(folder) == address


def test_another_host_is_a_warning_on_the_terminal(folder: Path) -> None:
    """Not in the log alone: its user looks at the terminal."""
    command = [sys.executable, "-m", "convotic_emulator", "--data-dir", str(folder)]
    command += ["--host", "0.0.0.0", "--idle-seconds", "0.2"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)

    assert "no authentication" in ended.stderr
    assert "0.0.0.0" in ended.stdout


def test_it_ends_after_its_last_client(folder: Path) -> None:
    """An open connection keeps it, however quiet; without one it ends."""

    def connect() -> grpc.Channel | None:
        channel = grpc.insecure_channel(daemon.ensure_running(folder, idle_seconds=0.5))
        try:
            grpc.channel_ready_future(channel).result(timeout=5)
        except grpc.FutureTimeoutError:  # on a slow machine it has ended before
            channel.close()
            return None
        return channel

    channel = wait_until(connect)
    assert channel is not None
    never(lambda: daemon.status(folder) is None, for_=1.2)

    channel.close()

    wait_until(lambda: daemon.status(folder) is None)


def test_a_damaged_folder_is_an_error_with_the_reason(folder: Path) -> None:
    """StartError carries the end of the log; the file is not touched."""
    folder.mkdir(parents=True)
    (folder / daemon.DATA_FILE).write_bytes(b"damaged" * 1000)

    with pytest.raises(daemon.StartError, match="can't be read"):
        daemon.ensure_running(folder)

    assert (folder / daemon.DATA_FILE).read_bytes() == b"damaged" * 1000


def test_a_stale_note_of_another_process_is_not_believed(folder: Path) -> None:
    """server.json of a dead server whose port is somebody else's now: a new server starts."""
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        note = {"pid": os.getpid(), "address": f"127.0.0.1:{port}", "host": "127.0.0.1"}
        (folder / "server.json").write_text(json.dumps(note | {"port": port}))

        assert daemon.ensure_running(folder) != note["address"]
