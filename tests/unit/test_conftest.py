"""What the unit tests' fixtures promise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def left_behind() -> Iterator[tuple[SimpleQueue[str], SimpleQueue[str]]]:
    """A thread of an earlier test: it logs what it is given, and says so."""
    asked, logged = SimpleQueue[str](), SimpleQueue[str]()

    def work() -> None:
        while text := asked.get():
            logging.getLogger("left").warning(text)
            logged.put(text)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield asked, logged
    asked.put("")
    thread.join()


def test_caplog_has_what_the_test_s_own_threads_log(
    left_behind: tuple[SimpleQueue[str], SimpleQueue[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing of a thread that was there before."""
    asked, logged = left_behind
    asked.put("of another test")
    logged.get(timeout=PATIENCE)
    own = threading.Thread(target=logging.getLogger("own").warning, args=("of this one",))
    own.start()
    own.join()

    assert caplog.messages == ["of this one"]
