"""Small numbers that name a process's control subscription: held by a lock, freed by any death.

A number is held by a lock on a file in a folder of this host and user. So the names of control
subscriptions are few and used again, and whoever gets the lock knows that the owner is gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import socket
import tempfile
from pathlib import Path

from convotic_pubsub.errors import PubsubTransportError

__all__ = ["Slot", "host_name"]

_MAX_SLOTS = 1_000


class Slot:
    """A number that no other live process of this host has."""

    def __init__(self, number: int, path: Path, descriptor: int) -> None:
        self.number = number
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def take_first(cls, scope: str) -> Slot:
        """Return the first free slot of ``scope``.

        Raises:
            PubsubTransportError: a thousand are taken.
        """
        for number in range(_MAX_SLOTS):
            slot = cls.take(scope, number)
            if slot is not None:
                return slot
        raise PubsubTransportError(f"{_MAX_SLOTS} processes of this host listen on one project")

    @classmethod
    def take(cls, scope: str, number: int) -> Slot | None:
        """Return a slot if it is free; a killed owner's lock is gone with it."""
        name = hashlib.sha256(scope.encode()).hexdigest()[:16]
        path = _folder() / f"{name}-{number}.slot"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_at(path, descriptor):
                return cls(number, path, descriptor)
            os.close(descriptor)  # its owner has removed it since it was opened

    def release(self) -> None:
        """Give the slot back, and its file. In a forked child: let go of the parent's."""
        if self._pid == os.getpid():
            # While the lock is held: a file that is at its path then belongs to nobody else.
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def host_name() -> str:
    """Return what tells this host from others, and containers of one host name from each other.

    Two that have the same name but not the same folder don't see each other's locks; the folder's
    own random name keeps them apart.
    """
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
    return f"{host}.{_folder_name()}"


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether a descriptor is that of the file at ``path`` now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"convotic-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _folder_name() -> str:
    path = _folder() / "name"
    try:
        return path.read_text()
    except FileNotFoundError:
        draft = path.with_name(f"name-{secrets.token_hex(8)}")
        draft.write_text(secrets.token_hex(4))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster
        finally:
            draft.unlink()
        return path.read_text()
