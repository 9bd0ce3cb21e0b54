"""Valkey as a process: how it is run, found again and ended. The supervisor decides when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from convotic_local.server import Record

__all__ = ["end_process", "find_server", "server_command"]

#: Valkey syncs its append-only file before it leaves; longer than this means that it hangs.
STOP_TIMEOUT_SECONDS = 10.0


def server_command(binary: Path, folder: Path, socket: str) -> list[str]:
    """Return the command that runs Valkey on ``socket`` alone, with its append-only file on.

    ``appendfsync everysec``: a killed Valkey loses nothing (the kernel has the writes); power loss
    can cost the last second.
    """
    options = {
        "port": "0",
        "unixsocket": socket,
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": "valkey.log",
        "daemonize": "no",
    }
    return [
        str(binary),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]


def find_server(record: Record | None) -> psutil.Process | None:
    """Return the Valkey that the record names if that very process still runs."""
    if record is None or "server_pid" not in record:
        return None
    try:
        process = psutil.Process(record["server_pid"])
        same = abs(process.create_time() - record["server_started"]) < 1
    except psutil.Error:
        return None
    return process if same and process.status() != psutil.STATUS_ZOMBIE else None


def end_process(process: psutil.Process) -> None:
    """Ask a process to end, and kill it when it has not after :data:`STOP_TIMEOUT_SECONDS`."""
    try:
        process.terminate()
        process.wait(STOP_TIMEOUT_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_SECONDS)
