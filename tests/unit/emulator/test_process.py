"""What a server's process does for itself."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from convotic_emulator.process import LoopErrors, serve


@pytest.fixture
def _restored_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()  # what others have frozen, and what is counted less when it is freed
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_restored_collector")
async def test_the_garbage_collector_is_not_in_the_way(tmp_path: Path) -> None:
    """A collection of all that is loaded would have every client wait for 15 ms."""
    gc.set_threshold(700, 10, 10)
    options = argparse.Namespace(
        data_dir=tmp_path,
        host="127.0.0.1",
        port=0,
        fsync=False,
        idle_seconds=0.01,
        resources=None,
        push_host=[],
    )

    await serve(options)

    assert gc.get_threshold()[0] > 700
    assert gc.get_freeze_count() > 0


def test_a_lack_of_descriptors_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio reports it 128 times a second; other errors are logged as ever."""
    loop = asyncio.new_event_loop()
    handler = LoopErrors()

    for _ in range(128):
        handler(loop, {"message": "accept", "exception": OSError(errno.EMFILE, "Too many files")})
    handler(loop, {"message": "another", "exception": ValueError("x")})

    assert [record.getMessage()[:30] for record in caplog.records] == [
        "No connection can be accepted ",
        "another",
    ]
    loop.close()
