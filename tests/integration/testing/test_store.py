"""The store of tests on a busy machine, where an answer takes longer than the second it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from convotic_celery.testing.store import ValkeyOnSocket


@pytest.fixture
def store() -> Iterator[ValkeyOnSocket]:
    """A server of the test's own."""
    running = ValkeyOnSocket()
    yield running
    running.stop()


def test_one_that_answers_late_runs(store: ValkeyOnSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would be started beside it, and what a test has written be elsewhere."""
    server: Any = store._server
    answers, ask = iter([False]), server.is_running
    monkeypatch.setattr(server, "is_running", lambda: next(answers, True) and ask())

    assert store.is_running


def test_one_that_does_not_answer_is_ended(
    store: ValkeyOnSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on without its folder, long after the tests."""
    server: Any = store._server
    process = server._process
    monkeypatch.setattr(server, "is_running", lambda: False)

    store.stop()

    assert process.returncode is not None


def test_one_that_has_ended_may_be_stopped_again(store: ValkeyOnSocket) -> None:
    """It does not run, and nothing is raised."""
    store.stop()

    assert not store.is_running
    store.stop()
