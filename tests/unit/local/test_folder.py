"""Which folders are used, and that none is changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from convotic_local import FileLock, FolderRefused, prepare_folder, private_folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Mode 0700, with its parents made."""
    prepare_folder(tmp_path / "a" / "b")

    assert mode_of(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize("mode", [0o1777, 0o775, 0o757])
def test_a_shared_folder_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    """With its mode, and a folder that would do; the mode stays."""
    tmp_path.chmod(mode)

    with pytest.raises(FolderRefused, match=rf"mode {mode:04o}\); name a folder of your own"):
        prepare_folder(tmp_path)

    assert mode_of(tmp_path) == mode


def test_a_folder_that_others_read_is_left_as_it_is(tmp_path: Path) -> None:
    """As ``mkdir`` makes it."""
    tmp_path.chmod(0o755)

    prepare_folder(tmp_path)

    assert mode_of(tmp_path) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    """Also to root, who could use it: its owner could change it under our hands."""
    os.chown(tmp_path, 12345, 12345)

    with pytest.raises(FolderRefused, match="belongs to another user"):
        prepare_folder(tmp_path)
    with pytest.raises(FolderRefused, match="a folder of yours"):
        private_folder(tmp_path)


def test_a_lock_is_looked_at_without_being_taken(tmp_path: Path) -> None:
    """Looking creates nothing, and does not keep others from taking it."""
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not lock.is_held()
    assert list(tmp_path.iterdir()) == []

    assert lock.take()

    assert other.is_held()
    assert not other.take()
    with pytest.raises(TimeoutError, match="another process has held"), other:
        pytest.fail("it was taken twice")
    lock.release()
    assert not other.is_held()


def test_a_lock_s_file_is_no_link(tmp_path: Path) -> None:
    """Somebody could have made it to have a file created elsewhere."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        FileLock(tmp_path / "lock").take()

    assert not (tmp_path / "elsewhere").exists()
