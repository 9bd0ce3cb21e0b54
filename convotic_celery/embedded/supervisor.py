"""The process beside Valkey: starts it, restarts it when killed, ends it after its last client.

Run by :mod:`convotic_celery.embedded.store` as
``python -m convotic_celery.embedded.supervisor --data-dir DIR --binary FILE``. It imports nothing
heavy, so that a first start takes about 0.2 s.
"""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from convotic_celery.embedded.paths import StorePaths
from convotic_celery.embedded.valkey import end_process, find_server, server_command
from convotic_celery.embedded.wire import ValkeyRefused, is_ready, read_info
from convotic_local import FolderInUse

__all__ = ["Supervisor", "main"]

logger = logging.getLogger(__name__)

#: Loading a large append-only file takes time: about 1 s for 500 MB.
START_TIMEOUT_SECONDS = 60.0
#: How many times Valkey may die within the window before the supervisor ends.
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0


class StartFailed(Exception):
    """The store could not be started; the text is meant for a person."""


class Supervisor:
    """Keep one Valkey running for one data folder, until it has been unused for a while."""

    def __init__(self, paths: StorePaths, binary: Path, *, idle_seconds: float) -> None:
        self._paths = paths
        self._binary = binary
        self._idle_seconds = idle_seconds
        self._own = paths.server
        self._server_lock = paths.valkey_lock
        self._server: psutil.Process | None = None
        self._socket = ""
        self._stop = threading.Event()
        self._restarts: list[float] = []

    def start(self) -> None:
        """Have a Valkey that answers: a new one, or one whose supervisor died.

        Raises:
            StartFailed: Valkey does not start.
        """
        # Before other processes can find this one, and signal it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        if not self._adopt():
            self._start_server()

    def run(self) -> None:
        """Watch until stopped or idle; then end Valkey. Blocks."""
        tick = min(1.0, self._idle_seconds / 4)
        last_used = time.monotonic()
        connections = -1
        while not self._stop.wait(tick):
            if not self._own.names_us():
                logger.warning(
                    "The data folder is gone; ending Valkey, which no client can find any more"
                )
                assert self._server is not None
                self._server.kill()  # one that ends by itself removes a successor's socket
                self._server.wait(10)
                return
            if not self._is_alive():
                self._restart()
                connections = -1
            clients, seen = self._usage()
            # Our own question is one connection; any more is a client, however short.
            if clients or seen != connections + 1:
                last_used = time.monotonic()
            connections = seen
            if time.monotonic() - last_used < self._idle_seconds:
                continue
            if self._own.withdraw(unless_asked_for_seconds=self._idle_seconds):
                break
        self._end()

    def _adopt(self) -> bool:
        """Take over a Valkey that outlived its supervisor, if one answers; say whether."""
        if self._server_lock.take():
            return False
        record = self._own.last()
        server = find_server(record)
        if record is None or server is None:
            raise StartFailed(
                f"A Valkey of an earlier run still holds {self._paths.folder}, but no record says "
                "which process it is. End it (pgrep -a valkey-server), then try again."
            )
        if not is_ready(record["socket"]):
            end_process(server)
            if not self._server_lock.take():
                raise StartFailed(
                    f"Valkey (process {server.pid}) does not answer and can't be ended."
                )
            return False
        logger.info("Adopted a running Valkey", extra={"server_pid": server.pid})
        self._server, self._socket = server, record["socket"]
        self._announce()
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
        self._announce()
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_ready(self._socket):
            if not self._is_alive():
                raise StartFailed(f"Valkey ended at its start: {self._last_words(started_at)}")
            if time.monotonic() > until:
                raise StartFailed(f"Valkey was not ready after {START_TIMEOUT_SECONDS:g} s.")
            self._stop.wait(0.01)
        logger.info("Started Valkey", extra={"server_pid": self._server.pid})

    def _announce(self) -> None:
        assert self._server is not None
        self._own.announce(
            {
                "socket": self._socket,
                "server_pid": self._server.pid,
                "server_started": self._server.create_time(),
            }
        )

    def _last_words(self, started_at: int) -> str:
        try:
            with self._paths.server_log.open("rb") as log:
                log.seek(started_at)
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " / ".join(lines[-3:]) or f"it wrote nothing to {self._paths.server_log}"

    def _is_alive(self) -> bool:
        assert self._server is not None
        try:
            self._server.wait(0)
        except psutil.TimeoutExpired:
            # An adopted one is not our child: if its parent does not reap it, it stays as a zombie.
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

    def _end(self) -> None:
        assert self._server is not None
        self._own.withdraw()
        end_process(self._server)
        self._remove_socket()
        self._server_lock.release()
        logger.info("Ended Valkey")

    def _remove_socket(self) -> None:
        path = Path(self._socket)
        path.unlink(missing_ok=True)
        if path.parent != self._paths.folder:  # a temp folder made for it alone
            with suppress(OSError):
                path.parent.rmdir()


def main() -> int:
    """Have a store and watch it until it ends."""
    parser = argparse.ArgumentParser(prog="convotic_celery.embedded.supervisor")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    paths = StorePaths(arguments.data_dir)
    try:
        paths.create()
        with paths.server.hold():
            logging.basicConfig(
                filename=paths.server.log,
                level=logging.INFO,
                format="%(asctime)s %(levelname)s %(message)s",
            )
            supervisor = Supervisor(paths, arguments.binary, idle_seconds=arguments.idle_seconds)
            supervisor.start()
            supervisor.run()
    except (FolderInUse, StartFailed, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - its starter reads that in the log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
