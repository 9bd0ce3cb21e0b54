"""Which folders may be used: this user's own, which no other user can write to."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["FolderRefused", "prepare_folder", "private_folder", "runtime_folder"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class FolderRefused(PermissionError):
    """The folder is another user's or shared; the text says what to do."""


def prepare_folder(folder: Path) -> None:
    """Create a data folder with mode 0700, or check the one that is there and leave it as it is.

    Raises:
        FolderRefused: It belongs to another user, or others can write to it.
        OSError: It can't be created, or is no folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    advice = f"name a folder of your own, for instance {folder / 'convotic'}"
    if status.st_uid != os.geteuid():
        raise FolderRefused(f"{folder} belongs to another user; {advice}")
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise FolderRefused(f"others can write to {folder} (mode {mode:04o}); {advice}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")


def private_folder(folder: Path) -> Path:
    """Create a folder for this user alone in one that others can write to; return it.

    Raises:
        FolderRefused: What is there is another user's, a link, or open to others.
        OSError: It can't be created.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not is_ours or status.st_mode & _OTHERS:
            raise FolderRefused(
                f"{folder} must be a folder of yours with mode 0700; remove it"
            ) from None
    return folder


def runtime_folder() -> Path:
    """Return this user's private folder for locks, the same for all its processes on this host.

    Raises:
        FolderRefused: Somebody else has made it.
        OSError: There is no writable folder for temporary files.
    """
    return private_folder(Path(tempfile.gettempdir()) / f"convotic-{os.geteuid()}")
