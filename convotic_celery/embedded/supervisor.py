"""The process beside Valkey: starts it, restarts it when killed, ends it after its last client.

Run by :mod:`convotic_celery.embedded.store` as
``python -m convotic_celery.embedded.supervisor --data-dir DIR --binary FILE``. It detaches, prints
 one line of JSON (``{"socket": ...}`` or ``{"error": ...}``) when it knows, and then lives in
the background. It imports nothing heavy, so that a first start takes about 0.2 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from convotic_celery.embedded.lock import FileLock
from convotic_celery.embedded.paths import StorePaths, StoreRecord
from convotic_celery.embedded.valkey import end_process, find_server, server_command
from convotic_celery.embedded.wire import ValkeyRefused, is_ready, read_info

__all__ = ["Supervisor", "main"]

logger = logging.getLogger(__name__)

#: Loading a large append-only file takes time: about 1 s for 500 MB.
START_TIMEOUT_SECONDS = 60.0
#: How many times Valkey may die within the window before the supervisor gives up.
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0


class StartFailed(Exception):
    """The store could not be started; the text is meant for a person."""


class Supervisor:
    """Keep one Valkey running for one data folder, until nobody has used it for a while."""

    def __init__(self, paths: StorePaths, binary: Path, *, idle_seconds: float) -> None:
        self._paths = paths
        self._binary = binary
        self._idle_seconds = idle_seconds
        self._own_lock = FileLock(paths.supervisor_lock)
        self._server_lock = FileLock(paths.server_lock)
        self._server: psutil.Process | None = None
        self._socket = ""
        self._stop = threading.Event()
        self._restarts: list[float] = []

    @property
    def socket(self) -> str:
        """Absolute path of Valkey's unix socket, once :meth:`start` has returned."""
        return self._socket

    def start(self) -> None:
        """Take the folder and have a Valkey that answers: a new one, or one whose supervisor died.

        Raises:
            StartFailed: Another supervisor has the folder, or Valkey does not start.
        """
        if not self._own_lock.take():
            raise StartFailed(f"The store of {self._paths.folder} is running already.")
        if not self._adopt():
            self._start_server()

    def run(self) -> None:
        """Watch until told to stop or until idle; then end Valkey. Blocks."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        tick = min(1.0, self._idle_seconds / 4)
        last_used = time.monotonic()
        connections = -1
        while not self._stop.wait(tick):
            if not self._is_recorded():
                logger.warning("The data folder is gone; ending Valkey, which nobody finds there")
                assert self._server is not None
                self._server.kill()  # one that ends by itself removes a successor's socket
                self._server.wait(10)
                return
            if not self._is_alive():
                self._restart()
                connections = -1
            clients, seen = self._usage()
            # Our own question is one connection; more than that is somebody, however short.
            if clients or seen != connections + 1:
                last_used = time.monotonic()
            connections = seen
            if time.monotonic() - last_used >= self._idle_seconds and self._end_unless_starting():
                return
        self._end()

    def _adopt(self) -> bool:
        """Take over a Valkey that outlived its supervisor, if one answers; tell whether one did."""
        if self._server_lock.take():
            return False
        record = self._paths.read_record()
        server = find_server(record)
        if record is None or server is None:
            raise StartFailed(
                f"A Valkey of an earlier run still holds {self._paths.folder}, but no record says "
                "which process it is. End it (pgrep -a valkey-server), then try again."
            )
        if not is_ready(record.socket):
            end_process(server)
            if not self._server_lock.take():
                raise StartFailed(
                    f"Valkey (process {server.pid}) does not answer and can't be ended."
                )
            return False
        logger.info("Adopted a running Valkey", extra={"server_pid": server.pid})
        self._server, self._socket = server, record.socket
        self._write_record()
        return True

    def _start_server(self) -> None:
        self._socket = str(self._paths.socket())
        Path(self._socket).unlink(missing_ok=True)
        started_at = self._paths.server_log.stat().st_size if self._paths.server_log.exists() else 0
        try:
            self._server = psutil.Popen(
                server_command(self._binary, self._paths.folder, self._socket),
                cwd=self._paths.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._server_lock.fileno(),),
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise StartFailed(f"{self._binary} can't be run: {error}") from error
        self._write_record()
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_ready(self._socket):
            if not self._is_alive():
                raise StartFailed(f"Valkey ended at its start: {self._last_words(started_at)}")
            if time.monotonic() > until:
                raise StartFailed(f"Valkey was not ready after {START_TIMEOUT_SECONDS:g} s.")
            self._stop.wait(0.01)
        logger.info("Started Valkey", extra={"server_pid": self._server.pid})

    def _write_record(self) -> None:
        assert self._server is not None
        self._paths.write_record(
            StoreRecord(
                os.getpid(), self._server.pid, self._server.create_time(), socket=self._socket
            )
        )

    def _last_words(self, started_at: int) -> str:
        try:
            with self._paths.server_log.open("rb") as log:
                log.seek(started_at)
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " / ".join(lines[-3:]) or f"it wrote nothing to {self._paths.server_log}"

    def _is_recorded(self) -> bool:
        """Say whether the folder names us: it may have been deleted, and be another's by now."""
        record = self._paths.read_record()
        return record is not None and record.supervisor_pid == os.getpid()

    def _is_alive(self) -> bool:
        assert self._server is not None
        try:
            self._server.wait(0)
        except psutil.TimeoutExpired:
            # An adopted one is not our child: where nobody reaps it, it stays as a zombie.
            return self._server.status() != psutil.STATUS_ZOMBIE
        return False

    def _restart(self) -> None:
        now = time.monotonic()
        recent = [moment for moment in self._restarts if now - moment < RESTART_WINDOW_SECONDS]
        self._restarts = [*recent, now]
        if len(self._restarts) > MAX_RESTARTS:
            raise StartFailed(f"Valkey died {len(self._restarts)} times in a minute; giving up.")
        logger.error("Valkey died; starting it again", extra={"restarts": len(self._restarts)})
        # An adopted server held the lock itself; our own start already holds it.
        self._server_lock.release()
        if not self._server_lock.take():
            raise StartFailed(f"Another Valkey holds {self._paths.folder}.")
        self._start_server()

    def _usage(self) -> tuple[int, int]:
        """Return how many clients are connected, and how many ever were; ourselves included."""
        try:
            info = read_info(self._socket, "")
        except (OSError, ValkeyRefused):
            return 1, -1  # busy or just gone: never a reason to end it
        return int(info["connected_clients"]) - 1, int(info["total_connections_received"])

    def _end_unless_starting(self) -> bool:
        """End Valkey, unless somebody is just being told that it runs; tell whether it ended."""
        start_lock = FileLock(self._paths.start_lock)
        if not start_lock.take():
            return False
        try:
            self._end()
        finally:
            start_lock.release()
        return True

    def _end(self) -> None:
        assert self._server is not None
        end_process(self._server)
        self._paths.record.unlink(missing_ok=True)
        self._remove_socket()
        # Last: who waits for this lock may start the next one at once.
        self._server_lock.release()
        self._own_lock.release()
        logger.info("Ended Valkey")

    def _remove_socket(self) -> None:
        path = Path(self._socket)
        path.unlink(missing_ok=True)
        if path.parent != self._paths.folder:  # a temp folder made for it alone
            with suppress(OSError):
                path.parent.rmdir()


def main() -> int:
    """Detach, start the store, report, and watch it until it ends."""
    parser = argparse.ArgumentParser(prog="convotic_celery.embedded.supervisor")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    if os.fork():  # the parent returns at once, so that nobody has to wait for the child
        os._exit(0)
    os.setsid()
    paths = StorePaths.of(arguments.data_dir)
    paths.create()
    logging.basicConfig(
        filename=paths.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    supervisor = Supervisor(paths, arguments.binary, idle_seconds=arguments.idle_seconds)
    try:
        supervisor.start()
    except (StartFailed, OSError) as error:
        _report({"error": str(error)})
        return 1
    _report({"socket": supervisor.socket})
    os.chdir("/")
    try:
        supervisor.run()
    except StartFailed:
        logger.exception("The store ended")
        return 1
    return 0


def _report(outcome: dict[str, str]) -> None:
    """Tell whoever started us, and let go of their pipes: they read until we close them."""
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
