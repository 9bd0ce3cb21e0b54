"""Where the embedded store keeps its files. Nothing here starts, stops or talks to a process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from convotic_celery.embedded.wire import is_ready
from convotic_local import FileLock, LocalServer, prepare_folder, private_folder

__all__ = ["MAX_SOCKET_PATH_BYTES", "StorePaths"]

#: The kernel's ``sun_path`` holds 104 bytes on macOS and 108 on Linux, the final zero included.
MAX_SOCKET_PATH_BYTES = 100

SOCKET_NAME = "valkey.sock"


class StorePaths:
    """The files of one data folder's store, ``<data_dir>/store``; creates nothing by itself.

    ``store.json`` is its record: ``pid`` is the supervisor's, ``socket`` the absolute path of the
    unix socket (TMPDIR may differ elsewhere), ``server_pid`` Valkey's, and ``server_started`` tells
    that from a later process of the same number.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.folder = self.data_dir / "store"
        self.server_log = self.folder / "valkey.log"
        #: Valkey holds it too (inherited), so that an orphan is noticed even without a record.
        self.valkey_lock = FileLock(self.folder / "valkey.lock")
        self.server = LocalServer(
            self.folder,
            title="embedded store",
            record="store.json",
            log="supervisor.log",
            is_ready=lambda record: is_ready(record.get("socket", "")),
        )

    def create(self) -> None:
        """Create the folders with mode 0700, or check them.

        Raises:
            OSError: One can't be created or written, or is not this user's alone.
        """
        prepare_folder(self.data_dir)
        private_folder(self.folder)

    def socket(self) -> Path:
        """Choose the socket's path: in the folder or, where too long, in a private temp folder.

        Raises:
            OSError: The temp folder exists and belongs to somebody else, or is open to others.
        """
        if _fits(self.folder):
            return self.folder / SOCKET_NAME
        key = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        name = f"convotic-{os.geteuid()}-{key}"
        # TMPDIR may be long too; /tmp is there wherever unix sockets are.
        bases = [base for base in (tempfile.gettempdir(), "/tmp") if _fits(Path(base) / name)]  # noqa: S108
        return private_folder(Path(bases[0]) / name) / SOCKET_NAME


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES
