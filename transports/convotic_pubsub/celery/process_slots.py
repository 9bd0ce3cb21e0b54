"""Small numbers that name a process's control subscription: held by a lock, freed by any death.

A number is held by a lock on a file in a folder of this host and user. So the names of control
subscriptions are few and used again, and a process that gets the lock knows that the owner is gone.
Where there is no such folder (a read-only file system), or it is not this user's alone, a process
has numbers and a name of its own, and what it leaves behind expires.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import itertools
import logging
import os
import re
import secrets
import socket
from typing import TYPE_CHECKING

from convotic_local import runtime_folder
from convotic_pubsub.errors import PubsubTransportError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ProcessSlot", "host_name"]

logger = logging.getLogger(__name__)

_MAX_SLOTS = 1_000
#: Of a process without a folder: its name among the others, and its numbers.
_TOKEN, _numbers = secrets.token_hex(4), itertools.count()


class ProcessSlot:
    """A number that no other live process of this host has."""

    def __init__(self, number: int, path: Path | None = None, descriptor: int = -1) -> None:
        self.number = number
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def take_first(cls, scope: str) -> ProcessSlot:
        """Return the first free slot of ``scope``.

        Raises:
            PubsubTransportError: a thousand are taken.
        """
        if _folder() is None:
            return cls(next(_numbers))
        for number in range(_MAX_SLOTS):
            slot = cls.take(scope, number)
            if slot is not None:
                return slot
        raise PubsubTransportError(f"{_MAX_SLOTS} processes of this host listen on one project")

    @classmethod
    def take(cls, scope: str, number: int) -> ProcessSlot | None:
        """Return a slot if it is free; a killed owner's lock is gone with it."""
        folder = _folder()
        if folder is None:
            return None
        name = hashlib.sha256(scope.encode()).hexdigest()[:16]
        path = folder / f"{name}-{number}.slot"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
        if self._path is None:
            return
        if self._pid == os.getpid():
            # While the lock is held: then the file at its path belongs to no other process.
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


def _folder() -> Path | None:
    try:
        return runtime_folder()
    except OSError as error:
        _warn(str(error))
        return None


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(
        "No folder for the locks of control subscriptions, so that this process has new ones at "
        "each start, which expire after a day: %s. Mount something writable at /tmp, or set TMPDIR",
        reason,
        extra={"action": "no_lock_folder"},
    )


def _folder_name() -> str:
    folder = _folder()
    if folder is None:
        return f"{_TOKEN}-{os.getpid()}"
    path = folder / "name"
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
