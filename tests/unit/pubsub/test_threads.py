"""Daemon threads that start when there is work, and can be taken work back from."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue

import pytest

from convotic_pubsub.threads import LazyThread, WorkerThreads
from tests.support.waiting import PATIENCE, never, wait_until


class Gate:
    """Work that waits until it is let through."""

    def __init__(self) -> None:
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.open = threading.Event()

    def __call__(self, number: int) -> None:
        self.begun.put(number)
        self.open.wait(PATIENCE)


def test_at_most_limit_items_run_at_once() -> None:
    """The third waits until a thread is free; threads are kept and used again."""
    gate = Gate()
    threads = WorkerThreads(gate, limit=2, name="unit")
    for number in range(5):
        threads.submit(number)

    wait_until(lambda: gate.begun.qsize() == 2)
    never(lambda: gate.begun.qsize() > 2, for_=0.05)
    gate.open.set()

    wait_until(lambda: gate.begun.qsize() == 5)
    assert threads.count == 2
    threads.stop()


def test_what_has_not_begun_can_be_taken_back() -> None:
    """In order; it is not run afterwards."""
    gate = Gate()
    threads = WorkerThreads(gate, limit=1, name="unit")
    for number in range(3):
        threads.submit(number)
    wait_until(lambda: gate.begun.qsize() == 1)

    assert threads.take_back() == [1, 2]
    gate.open.set()
    threads.stop()
    wait_until(lambda: threads.count == 0)
    assert gate.begun.qsize() == 1


def test_resizing_starts_and_ends_threads() -> None:
    """More at once takes effect for what already waits."""
    gate = Gate()
    threads = WorkerThreads(gate, limit=1, name="unit")
    for number in range(3):
        threads.submit(number)
    threads.resize(3)
    wait_until(lambda: gate.begun.qsize() == 3)

    gate.open.set()
    threads.resize(1)
    wait_until(lambda: threads.count == 1)
    threads.stop()


def test_an_error_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next item runs."""
    done: list[int] = []

    def handle(number: int) -> None:
        if number == 0:
            raise SystemExit(1)
        done.append(number)

    threads = WorkerThreads(handle, limit=1, name="unit")
    with caplog.at_level(logging.ERROR):
        threads.submit(0)
        threads.submit(1)
        wait_until(lambda: done)

    assert "unit: a job raised" in caplog.text
    threads.stop()


def test_what_was_taken_on_runs_and_nothing_after_stop() -> None:
    """The caller gets an error, so that nothing is lost."""
    gate = Gate()
    threads = WorkerThreads(gate, limit=1, name="unit")
    threads.submit(1)
    threads.submit(2)
    threads.stop()

    with pytest.raises(RuntimeError, match="stopped"):
        threads.submit(3)
    gate.open.set()
    wait_until(lambda: threads.count == 0)
    assert gate.begun.qsize() == 2


def test_the_systems_limit_of_threads_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those there do all the work, and it is told once; without any the caller gets an error."""
    gate = Gate()
    threads: WorkerThreads[int] = WorkerThreads(gate, limit=3, name="unit")
    threads.submit(0)
    wait_until(lambda: gate.begun.qsize() == 1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(threading.Thread, "start", refuse)
        for number in (1, 2):
            threads.submit(number)
        nothing: WorkerThreads[int] = WorkerThreads(gate, limit=3, name="none")
        with pytest.raises(RuntimeError, match="lets no thread start"):
            nothing.submit(3)
    assert nothing.take_back() == []
    assert caplog.text.count("unit: can't start new thread; 1 threads go on") == 1
    nothing.submit(4)  # tries again
    wait_until(lambda: gate.begun.qsize() == 2)

    gate.open.set()
    wait_until(lambda: gate.begun.qsize() == 4)
    assert threads.count == 1
    nothing.stop()
    threads.stop()


def test_a_thread_that_could_not_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the system's limit of threads: no later lock was renewed, no dead letter indexed."""
    runs, end = SimpleQueue[int](), threading.Event()

    def work() -> None:
        runs.put(1)
        end.wait(PATIENCE)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = LazyThread(work, name="unit")
    assert thread.join(0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            thread.start()
    assert not thread.is_alive

    assert [thread.start(), thread.start()] == [True, False]

    wait_until(lambda: runs.qsize() == 1)
    assert not thread.join(0)
    end.set()
    assert thread.join(PATIENCE)


def test_a_thread_outlives_an_error_that_cant_be_logged() -> None:
    """Its slot would be lost for good: whatever logs may raise, too."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    done: SimpleQueue[int] = SimpleQueue()

    def work(number: int) -> None:
        if number == 0:
            raise ValueError(number)
        done.put(number)

    logger = logging.getLogger("convotic_pubsub.threads")
    handler = Broken()
    logger.addHandler(handler)
    threads = WorkerThreads(work, limit=1, name="unit")
    try:
        threads.submit(0)
        threads.submit(1)
        assert done.get(timeout=PATIENCE) == 1
    finally:
        logger.removeHandler(handler)
        threads.stop()
