"""The thread that publishes one message at a time."""

from __future__ import annotations

import logging
import threading
from typing import Never

import pytest

from convotic_pubsub.publish.sender import Sender
from tests.support.waiting import wait_until


def test_where_no_thread_may_start_another_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns it, and the next call tries again."""
    sender = Sender()
    done: list[int] = []

    def refuse(_: threading.Thread) -> Never:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not sender.run(done.append, 1)

    assert sender.run(done.append, 2)
    wait_until(lambda: done == [2])
    sender.end()


def test_an_error_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next message goes out."""
    sender = Sender()
    done: list[int] = []

    def fail() -> Never:
        raise SystemExit(1)

    with caplog.at_level(logging.ERROR):
        sender.run(fail)
        sender.run(done.append, 1)
        wait_until(lambda: done)

    assert "could not be published" in caplog.text
    sender.end()


def test_what_was_taken_on_runs_and_nothing_after_the_end() -> None:
    """So each caller knows whether its message is on its way."""
    sender = Sender()
    done: list[int] = []
    assert sender.run(done.append, 1)
    sender.end()

    assert not sender.run(done.append, 2)
    wait_until(lambda: done == [1])
