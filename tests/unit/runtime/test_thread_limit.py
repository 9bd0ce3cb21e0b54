"""A worker at the system's limit of threads does without those that only help."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from celery.worker.consumer.mingle import Mingle

from convotic_celery.runtime.worker.last_runs import LastRuns
from convotic_celery.runtime.worker.mingling import mingle_in_background
from tests.unit.runtime.support import make_app


@pytest.fixture(autouse=True)
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_other_workers_are_asked_as_celery_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker waits for their answers: its start failed."""
    asked: list[Any] = []
    monkeypatch.setattr(Mingle, "sync", lambda _, consumer: asked.append(consumer))
    app, step = make_app(), SimpleNamespace(label=Mingle.label, sync=None)
    app.revokes.are_known = True
    consumer = SimpleNamespace(app=app, steps=[step])

    mingle_in_background(consumer)
    sync: Any = step.sync
    sync(consumer)

    assert asked == [consumer]


def test_a_warm_shutdown_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Although it can't say what it waits for: the worker did not stop."""
    run: Any = SimpleNamespace(name="task", id="1", time_start=time.time())
    monkeypatch.setattr(state, "active_requests", [run])

    LastRuns().start()

    assert "can't start new thread" in caplog.text


def test_a_revoke_that_can_t_be_stored_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """This process obeys it all the same: the order failed."""
    make_app().revokes.add_soon(["1"])

    assert "1 revoked tasks are not in the store" in caplog.text
