"""One server process a data folder: start it, find it, stop it.

Files in the folder (mode 0700): ``pubsub.sqlite3`` with its log, ``server.lock`` (held by the
server as long as it lives), ``start.lock`` (held by whoever is starting one), ``server.json`` (what
the server says about itself; kept after its end, so that the next one takes the same port),
``emulator.log``.

Light to import: no gRPC here, the callers are clients.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from threading import Event
from typing import IO, TYPE_CHECKING, Any

from convotic_emulator.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "LOG_FILE",
    "StartError",
    "ensure_running",
    "hold_server_lock",
    "info_time",
    "prepare_folder",
    "read_info",
    "status",
    "stop",
    "write_info",
]

DATA_FILE = "pubsub.sqlite3"
LOG_FILE = "emulator.log"
_SERVER_LOCK = "server.lock"
_START_LOCK = "start.lock"
_INFO_FILE = "server.json"

#: How often a file or a port is looked at while a server starts or ends.
_POLL_SECONDS = 0.02
#: Readers hold the server's lock for microseconds to see whether it is free.
_LOCK_SECONDS = 2.0
_LOG_TAIL_BYTES = 2000


class StartError(Exception):
    """The server did not start; the text has the end of its log."""


def ensure_running(
    data_dir: Path,
    *,
    idle_seconds: float = 60.0,
    timeout_seconds: float = 20,
    fsync: bool = False,
) -> str:
    """Return ``127.0.0.1:PORT`` of the folder's server; start one if none runs. Blocking.

    Any number of processes may call it at once: one server starts, all get its address. The server
    is detached from its starter, and ends ``idle_seconds`` after its last client has gone. One that
    is started with ``fsync`` survives power loss too; one that runs already is left as it is.

    Raises:
        StartError: it did not start within ``timeout_seconds``, or refused the data file.
    """
    prepare_folder(data_dir)
    deadline = time.monotonic() + timeout_seconds
    if (info := _running(data_dir)) is not None:
        os.utime(data_dir / _INFO_FILE)  # counts as a client: it won't end under our hands
        return str(info["address"])
    with _locked(data_dir / _START_LOCK, deadline):
        if (info := _running(data_dir)) is None:
            info = _start(data_dir, idle_seconds, deadline, fsync=fsync)
        return str(info["address"])


def status(data_dir: Path) -> dict[str, Any] | None:
    """Return what the folder's server says about itself, or None if none runs.

    ``{"pid": 123, "address": "127.0.0.1:4567", "host": …, "port": …, "version": …,
    "started_at": seconds since the epoch}``
    """
    if not _is_locked(data_dir / _SERVER_LOCK):
        return None
    return read_info(data_dir)


def stop(data_dir: Path, timeout_seconds: float = 10) -> bool:
    """End the folder's server cleanly; return whether there was one and it is gone. Blocking."""
    info = status(data_dir)
    if info is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(info["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while _is_locked(data_dir / _SERVER_LOCK):
        if time.monotonic() > deadline:
            return False
        _pause()
    return True


def prepare_folder(data_dir: Path) -> None:
    """Create the folder, for its owner only."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir.chmod(0o700)


@contextlib.contextmanager
def hold_server_lock(data_dir: Path) -> Iterator[None]:
    """Be the folder's server for the duration.

    Raises:
        StoreError: another server is.
    """
    with (data_dir / _SERVER_LOCK).open("a") as file:
        if not _lock(file, fcntl.LOCK_EX, time.monotonic() + _LOCK_SECONDS):
            raise StoreError(f"Another server runs on {data_dir}; one folder has one server.")
        yield


def read_info(data_dir: Path) -> dict[str, Any] | None:
    """Return what the folder's last server wrote about itself."""
    try:
        info = json.loads((data_dir / _INFO_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    wanted = {"host": str, "port": int, "address": str}
    if not isinstance(info, dict) or not all(isinstance(info.get(k), wanted[k]) for k in wanted):
        return None  # somebody has written to it
    return info


def write_info(data_dir: Path, info: dict[str, Any]) -> None:
    """Say where the server is. Readers see the old or the new, never half."""
    path = data_dir / _INFO_FILE
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(info))
    draft.replace(path)


def info_time(data_dir: Path) -> float:
    """Return when the address was written or last given to somebody, in seconds since the epoch."""
    return (data_dir / _INFO_FILE).stat().st_mtime


def _running(data_dir: Path) -> dict[str, Any] | None:
    """Return the info of a server that can be connected to."""
    info = status(data_dir)
    if info is None or not info.get("pid"):
        return None
    try:
        with socket.create_connection((info["host"], info["port"]), timeout=1):
            return info
    except OSError:
        return None


def _start(data_dir: Path, idle_seconds: float, deadline: float, *, fsync: bool) -> dict[str, Any]:
    last = read_info(data_dir)
    if last is not None and not _is_locked(data_dir / _SERVER_LOCK):
        # A killed server left it behind; its port may be somebody else's by now.
        write_info(data_dir, last | {"pid": None})
    log_path = data_dir / LOG_FILE
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own module, our own interpreter
            [
                *(sys.executable, "-m", "convotic_emulator"),
                *("--data-dir", str(data_dir), "--idle-seconds", str(idle_seconds)),
                *(["--fsync"] if fsync else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    # It outlives this process or is stopped by another: whoever started it only has to reap it.
    threading.Thread(target=process.wait, name="convotic-emulator-reaper", daemon=True).start()
    while time.monotonic() < deadline:
        info = _running(data_dir)
        # Not of our process: a server that was ending when we looked, or somebody's in the
        # foreground. Either way the folder's server.
        if info is not None:
            return info
        if process.poll() is not None and not _is_locked(data_dir / _SERVER_LOCK):
            break
        _pause()
    else:
        process.terminate()
    raise StartError(
        f"The embedded Pub/Sub server for {data_dir} did not start. End of {log_path}:\n"
        + log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    )


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    with path.open("a") as file:
        if not _lock(file, fcntl.LOCK_EX, deadline):
            raise StartError(f"Another process holds {path}: it has been starting a server.")
        yield


def _lock(file: IO[str], kind: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            _pause()
        else:
            return True


def _is_locked(path: Path) -> bool:
    """Say whether somebody holds a lock exclusively; a shared one for an instant tells."""
    try:
        with path.open() as file:
            return not _lock(file, fcntl.LOCK_SH, 0)
    except FileNotFoundError:
        return False


def _pause() -> None:
    Event().wait(_POLL_SECONDS)
