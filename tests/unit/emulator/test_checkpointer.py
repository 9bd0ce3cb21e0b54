"""The log is folded into the data file while the server goes on."""

from __future__ import annotations

import threading
from pathlib import Path

from convotic_emulator.store import Store
from tests.support.waiting import wait_until


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def fill(store: Store, first: int, count: int) -> None:
    """Commit some rows of a kilobyte each."""
    store.append(7, [(seq, 0, None, bytes(1000)) for seq in range(first, first + count)])
    store.commit()


def test_what_was_committed_is_folded_into_the_file(tmp_path: Path) -> None:
    """Without another commit, and without closing: a later start has little to recover."""
    path = tmp_path / "data.sqlite"
    store = Store(path)
    try:
        before = path.stat().st_size
        fill(store, 1, 100)

        wait_until(lambda: path.stat().st_size > before + 100_000, what="the file to grow")
    finally:
        store.close()


def test_the_log_starts_anew_and_stays_small(tmp_path: Path) -> None:
    """However much goes through it, as fast as it can: 120 MB here."""
    path = tmp_path / "data.sqlite"
    store = Store(path)
    try:
        for first in range(0, 120_000, 200):
            fill(store, first, 200)
        assert wal_of(path).stat().st_size < 80_000_000
    finally:
        store.close()


def test_closing_ends_the_thread_and_leaves_one_file(tmp_path: Path) -> None:
    """Nothing is left behind, and closing again is no error."""
    path = tmp_path / "data.sqlite"
    threads = set(threading.enumerate())
    store = Store(path)
    fill(store, 1, 10)

    store.close()
    store.close()

    assert set(threading.enumerate()) <= threads
    assert [each.name for each in tmp_path.iterdir()] == ["data.sqlite"]
