"""One server process a folder: start it, find it, stop it.

Files in the folder: ``start.lock`` (held while somebody starts, finds or ends the server, so that
these never overlap), ``server.lock`` (held by the server as long as it lives), a record (what the
server says about itself; kept after its end) and a log. Light to import: the callers are clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from convotic_local.folder import prepare_folder
from convotic_local.lock import POLL_SECONDS, FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["FolderInUse", "LocalServer", "Record", "StartError"]

#: What a server says about itself; ``pid`` is None once it has ended.
Record: TypeAlias = dict[str, Any]

#: Readers hold the server's lock for microseconds to see whether it is free.
_LOCK_SECONDS = 2.0
_LOG_TAIL_BYTES = 2000


class StartError(Exception):
    """The server did not start; the text has the end of its log."""


class FolderInUse(Exception):
    """Another server runs on the folder."""


class LocalServer:
    """The server of one folder, as its callers and as the server itself see it.

    Safe from many processes and threads at once.

    Args:
        folder: Where its files are; made by :meth:`ensure_running` and :meth:`hold`.
        title: What it is, for errors: ``Pub/Sub server``.
        record: Name of the record's file.
        log: Name of the log's file.
        is_ready: Whether the server of a record answers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        record: str,
        log: str,
        is_ready: Callable[[Record], bool],
    ) -> None:
        self.folder = folder
        self.log = folder / log
        self.start_lock = folder / "start.lock"
        self.lock = FileLock(folder / "server.lock")
        self._title = title
        self._record = folder / record
        self._is_ready = is_ready

    # What callers do.

    def ensure_running(self, command: Sequence[str], *, timeout_seconds: float) -> Record:
        """Return the record of a server that answers; start one by ``command`` if none does.

        Blocking. The server is detached from its starter, and counts the call as a client.

        Raises:
            StartError: It did not start within ``timeout_seconds``, or refused.
            OSError: The folder can't be used.
        """
        prepare_folder(self.folder)
        deadline = time.monotonic() + timeout_seconds
        starting = FileLock(self.start_lock)
        if not starting.take(wait_seconds=timeout_seconds):
            raise StartError(
                f"Another process holds {self.start_lock}: it has been starting a server."
            )
        try:
            record = self.find() or self._start(command, deadline)
            os.utime(self._record)
        finally:
            starting.release()
        return record

    def find(self) -> Record | None:
        """Return the record of a server that runs and answers."""
        record = self.status()
        return record if record and record.get("pid") and self._is_ready(record) else None

    def status(self) -> Record | None:
        """Return what the server says about itself, or None if none runs. Starts nothing."""
        return self.last() if self.lock.is_held() else None

    def stop(self, *, timeout_seconds: float) -> bool:
        """End the server cleanly; return whether there was one and it is gone. Blocking."""
        record = self.status()
        if record is None:
            return False
        if record.get("pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(record["pid"]), signal.SIGTERM)
        return _wait(lambda: not self.lock.is_held(), time.monotonic() + timeout_seconds)

    def last(self) -> Record | None:
        """Return what the last server wrote about itself; None where there is nothing to read."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    # What the server does.

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the folder's server for the duration.

        Raises:
            FolderInUse: Another server is.
            OSError: The folder can't be used.
        """
        prepare_folder(self.folder)
        if not self.lock.take(wait_seconds=_LOCK_SECONDS):
            raise FolderInUse(f"Another server runs on {self.folder}; one folder has one server.")
        try:
            self._withdraw()  # a killed run left it behind
            yield
        finally:
            self.lock.release()

    def announce(self, facts: Mapping[str, Any]) -> None:
        """Say where the server is: from now on it is found."""
        self._write({"pid": os.getpid(), **facts})

    def withdraw(self, *, unless_asked_for_seconds: float = 0) -> bool:
        """Stop being found; do nothing and return False if a client looks or has just looked.

        Without a number of seconds it is done in any case.
        """
        if not unless_asked_for_seconds:
            self._withdraw()
            return True
        starting = FileLock(self.start_lock)
        if not starting.take():
            return False
        try:
            if self.asked_seconds_ago() < unless_asked_for_seconds:
                return False
            self._withdraw()
        finally:
            starting.release()
        return True

    def asked_seconds_ago(self) -> float:
        """Return how many seconds ago a client last got the server's record."""
        try:
            return time.time() - self._record.stat().st_mtime
        except OSError:
            return float("inf")

    def names_us(self) -> bool:
        """Say whether the folder names this process: it may have been deleted and made again."""
        return (self.last() or {}).get("pid") == os.getpid()

    def _withdraw(self) -> None:
        last = self.last()
        if last is not None:
            self._write(last | {"pid": None})

    def _write(self, record: Record) -> None:
        """Replace the record: readers see the old or the new, never half."""
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(record))
        draft.replace(self._record)

    def _start(self, command: Sequence[str], deadline: float) -> Record:
        # One that is ending holds the lock still; one in the foreground may become ready.
        _wait(lambda: not self.lock.is_held() or self.find() is not None, deadline)
        if (found := self.find()) is not None:
            return found
        if not self.lock.is_held():
            self._withdraw()  # a killed server left it behind; its port may be somebody else's
        with self.log.open("ab") as log:
            begin = log.tell()
            process = subprocess.Popen(  # noqa: S603  # our own modules, our own interpreter
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                cwd="/",
                umask=0o077,
            )
        # It outlives this process or is stopped by another: the starter only has to reap it.
        threading.Thread(target=process.wait, name=f"{self._title} reaper", daemon=True).start()
        # Found may be one of another's, too: the folder's server in any case.
        _wait(lambda: self.find() is not None or self._has_failed(process), deadline)
        record = self.find()
        if record is None:
            if process.poll() is None:
                process.terminate()
            raise StartError(
                f"The {self._title} for {self.folder} did not start. End of {self.log}:\n"
                + self._log_since(begin)
            )
        return record

    def _has_failed(self, process: subprocess.Popen[bytes]) -> bool:
        return process.poll() is not None and not self.lock.is_held()

    def _log_since(self, begin: int) -> str:
        try:
            content = self.log.read_bytes()
        except OSError:
            return ""
        # Shorter than before: it was rotated.
        text = content[begin:] if len(content) >= begin else content
        return text[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _wait(is_so: Callable[[], bool], deadline: float) -> bool:
    pause = threading.Event()
    while not is_so():
        if time.monotonic() > deadline:
            return False
        pause.wait(POLL_SECONDS)
    return True
