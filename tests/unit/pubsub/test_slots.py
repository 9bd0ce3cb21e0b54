"""Slots: one owner at a time, whatever dies or races, and no file left behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from convotic_pubsub.celery.process_slots import ProcessSlot, host_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the locks, this test's alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"convotic-{os.getuid()}"


def test_a_taken_slot_is_not_taken_twice(folder: Path) -> None:
    """The next one gets the next number; a released number is used again."""
    del folder
    first, second = ProcessSlot.take_first("scope"), ProcessSlot.take_first("scope")
    assert ProcessSlot.take("scope", 0) is None

    first.release()
    again = ProcessSlot.take_first("scope")

    assert (second.number, again.number) == (1, 0)
    second.release()
    again.release()


def test_a_released_slot_leaves_no_file(folder: Path) -> None:
    """Its file goes with it; that of a slot that is held stays."""
    held, released = ProcessSlot.take_first("scope"), ProcessSlot.take_first("scope")

    released.release()

    assert [path.name[-7:] for path in folder.glob("*.slot")] == ["-0.slot"]
    held.release()
    assert list(folder.glob("*.slot")) == []


def test_who_locks_a_file_that_was_removed_meanwhile_takes_the_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before its owner removed it, locked after: such a lock would protect nothing."""
    del folder
    owner = ProcessSlot.take_first("scope")
    really_lock = fcntl.flock

    def lock_after_release(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", really_lock)
        owner.release()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_release)
    taken = ProcessSlot.take("scope", 0)

    assert taken is not None
    assert ProcessSlot.take("scope", 0) is None
    taken.release()


def test_racing_owners_exclude_each_other(folder: Path) -> None:
    """Eight threads take and release one slot 200 times each; two never have it at once."""
    del folder
    owners: list[int] = []

    def race(_: int) -> int:
        taken = 0
        for _ in range(200):
            slot = ProcessSlot.take("scope", 0)
            if slot is not None:
                owners.append(1)
                assert len(owners) == 1
                owners.pop()
                slot.release()
                taken += 1
        return taken

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(race, range(8))) > 0


#: A process of its own: one with threads, as this one is, had better not fork.
FORK = """
import os
from convotic_pubsub.celery.process_slots import ProcessSlot
slot = ProcessSlot.take_first("scope")
child = os.fork()
if not child:
    slot.release()
    os._exit(0)
os.waitpid(child, 0)
print(ProcessSlot.take("scope", 0))
"""


def test_a_forked_child_lets_the_parents_slot_be(folder: Path) -> None:
    """Its release neither frees the number nor removes the file."""
    environment = os.environ | {"TMPDIR": str(folder.parent)}

    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "None\n"
    assert len(list(folder.glob("*.slot"))) == 1


@pytest.mark.parametrize("harm", ["a link", "others may enter", "a file", "read-only"])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    folder: Path, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is made behind a link; slots go on without, of this process alone, with a warning."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    match harm:
        case "a link":
            folder.symlink_to(elsewhere)
        case "others may enter":
            folder.mkdir()
            folder.chmod(0o777)
        case "a file":
            folder.write_text("")
        case _:
            monkeypatch.setattr(tempfile, "tempdir", "/proc")

    first, second = ProcessSlot.take_first("scope"), ProcessSlot.take_first("scope")

    assert first.number != second.number
    assert ProcessSlot.take("scope", first.number) is None
    assert str(os.getpid()) in host_name()
    assert list(elsewhere.iterdir()) == []
    assert caplog.text.count("TMPDIR") == 1
    first.release()
    second.release()
