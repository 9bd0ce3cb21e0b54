"""Where the embedded store keeps its files, and the record of who runs it.

Owns names and permissions only: nothing here starts, stops or talks to a process.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["MAX_SOCKET_PATH_BYTES", "StorePaths", "StoreRecord"]

#: The kernel's ``sun_path`` holds 104 bytes on macOS and 108 on Linux, the final zero included.
MAX_SOCKET_PATH_BYTES = 100

SOCKET_NAME = "valkey.sock"


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """Who serves a data folder's store; written by the supervisor, read by everybody."""

    #: The supervisor, which counts clients and ends the store.
    supervisor_pid: int
    #: Valkey itself, with the start time that tells it from a later process of the same number.
    server_pid: int
    server_started: float
    #: Absolute path of the unix socket. Recorded, not derived again: TMPDIR may differ elsewhere.
    socket: str


@dataclass(frozen=True, slots=True)
class StorePaths:
    """The files of one data folder's store."""

    #: ``<data_dir>/store``, mode 0700.
    folder: Path

    @classmethod
    def of(cls, data_dir: Path) -> StorePaths:
        """Name the store files of ``data_dir``; creates nothing."""
        return cls(data_dir.expanduser().resolve() / "store")

    @property
    def start_lock(self) -> Path:
        """Held while somebody starts, finds or ends the store, so that these never overlap."""
        return self.folder / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.folder / "supervisor.lock"

    @property
    def server_lock(self) -> Path:
        """Held by Valkey too (inherited), so an orphan is noticed even without a record."""
        return self.folder / "server.lock"

    @property
    def record(self) -> Path:
        """JSON of :class:`StoreRecord`."""
        return self.folder / "store.json"

    @property
    def log(self) -> Path:
        """Log of the supervisor; Valkey's own is ``valkey.log`` beside it."""
        return self.folder / "supervisor.log"

    @property
    def server_log(self) -> Path:
        """Log of Valkey."""
        return self.folder / "valkey.log"

    def create(self) -> None:
        """Create the folders with mode 0700; what exists keeps its mode.

        Raises:
            OSError: The folder can't be created or written.
        """
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{self.folder} is not writable")

    def socket(self) -> Path:
        """Choose the socket's path: in the folder or, where too long, in a private temp folder.

        Raises:
            OSError: The temp folder exists and belongs to somebody else, or is open to others.
        """
        if _fits(self.folder):
            return self.folder / SOCKET_NAME
        key = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        name = f"convotic-{os.getuid()}-{key}"
        # TMPDIR may be long too; /tmp is there wherever unix sockets are.
        bases = [base for base in (tempfile.gettempdir(), "/tmp") if _fits(Path(base) / name)]  # noqa: S108
        folder = Path(bases[0]) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{folder} must be a folder of yours with mode 0700; remove it")
        return folder / SOCKET_NAME

    def read_record(self) -> StoreRecord | None:
        """Return the last record, or None where there is none or it is unreadable."""
        try:
            return StoreRecord(**json.loads(self.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_record(self, record: StoreRecord) -> None:
        """Replace the record in one step."""
        draft = self.record.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(record)))
        draft.replace(self.record)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES
