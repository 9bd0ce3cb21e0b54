"""The emulator of a data folder: start it, find it, stop it.

Light to import: no gRPC here, the callers are clients. How that is done is convotic_local's.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from convotic_local import LocalServer, StartError

if TYPE_CHECKING:
    from pathlib import Path

    from convotic_local.server import Record

__all__ = [
    "DATA_FILE",
    "LOG_FILE",
    "StartError",
    "ensure_running",
    "local_server",
    "status",
    "stop",
]

DATA_FILE = "pubsub.sqlite3"
LOG_FILE = "emulator.log"


def ensure_running(
    data_dir: Path,
    *,
    idle_seconds: float = 60.0,
    timeout_seconds: float = 60,
    fsync: bool = False,
) -> str:
    """Return ``127.0.0.1:PORT`` of the folder's server; start one if none runs. Blocking.

    Any number of processes may call it at once: one server starts, all get its address. The server
    is detached from its starter, and ends ``idle_seconds`` after its last client has gone. One that
    is started with ``fsync`` survives power loss too; one that runs already is left as it is.

    Raises:
        StartError: it did not start within ``timeout_seconds``, or refused the data file.
        OSError: the folder can't be used, or is another user's or shared.
    """
    command = [
        *(sys.executable, "-m", "convotic_emulator"),
        *("--data-dir", str(data_dir), "--idle-seconds", str(idle_seconds)),
        *(["--fsync"] if fsync else []),
    ]
    record = local_server(data_dir).ensure_running(command, timeout_seconds=timeout_seconds)
    return str(record["address"])


def status(data_dir: Path) -> Record | None:
    """Return what the folder's server says about itself, or None if none runs.

    ``{"pid": 123, "address": "127.0.0.1:4567", "host": …, "port": …, "version": …,
    "started_at": seconds since the epoch}``
    """
    record = local_server(data_dir).status()
    return record if record and "address" in record else None


def stop(data_dir: Path, timeout_seconds: float = 30) -> bool:
    """End the folder's server cleanly; return whether there was one and it is gone. Blocking."""
    return local_server(data_dir).stop(timeout_seconds=timeout_seconds)


def local_server(data_dir: Path) -> LocalServer:
    """Return the server of a folder; starts nothing."""
    return LocalServer(
        data_dir,
        title="embedded Pub/Sub server",
        record="server.json",
        log=LOG_FILE,
        is_ready=_accepts,
    )


def _accepts(record: Record) -> bool:
    host, port = record.get("host"), record.get("port")
    if not isinstance(host, str) or not isinstance(port, int) or "address" not in record:
        return False  # somebody has written to it
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
