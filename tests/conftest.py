"""What all tests share: a clean environment, folders without leftover processes, CI's rule."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import _state as celery_state
from celery.worker import state as worker_state

from tests.support.google_emulator import google_emulator as run_google_emulator
from tests.support.waiting import wait_until

#: These decide what the code under test does; a developer's shell must not.
FOREIGN_VARIABLES = {
    "PUBSUB_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "KUBERNETES_SERVICE_HOST",
    "K_SERVICE",
    "CLOUD_RUN_JOB",
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_APP",
}

#: Names this session, so that sessions side by side don't see each other's processes. Short: a
#: socket's path must not be long.
FOLDER_PREFIX = f"convotic-test-{os.getpid()}-"


def pytest_configure() -> None:
    """Remove what would leak from the developer's shell into the tests."""
    # A shell starts background jobs, and nohup its command, with SIGINT ignored. That is inherited,
    # and then no process of a test ends on Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.upper().startswith("CONVOTIC_") or name in FOREIGN_VARIABLES:
            del os.environ[name]
    # Containers often have it: each of hundreds of processes would compile the sources again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits long, or it would run alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test is a failed one: what it needs must be there."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # pluggy sends the report in
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI must skip nothing: {report.longrepr}"
    return report  # type: ignore[return-value]  # a wrapper returns the result


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session if a process that uses one of its folders outlives it."""
    yield
    marks = (FOLDER_PREFIX, f"{tmp_path_factory.getbasetemp()}/")
    # One that was just stopped may be on its last lines.
    wait_until(lambda: not find_processes(*marks), what=f"the end of {find_processes(*marks)}")


def find_processes(*marks: str) -> list[list[str]]:
    """Return the command lines that have one of ``marks`` in them."""
    lines = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(mark in part for part in line for mark in marks)]


#: ``host:port`` of Google's emulator, one for the session: use a project of your own.
google_emulator = pytest.fixture(scope="session")(run_google_emulator)


@pytest.fixture(scope="session")
def our_emulator() -> Iterator[str]:
    """``host:port`` of our emulator, one for the session: use a project of your own."""
    from convotic_emulator import daemon  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        # Never idle: minutes of other tests may lie between two that use it.
        yield daemon.ensure_running(folder, idle_seconds=0)
    finally:
        daemon.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder of the test's own; its emulator and store are ended with the test."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        yield folder
    finally:
        end_servers(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end_servers(folder: Path) -> None:
    """End the emulator and the store of a data folder, whatever state they are in."""
    # Imported here: unit tests, which need neither, start half a second sooner.
    from convotic_celery.embedded import store  # noqa: PLC0415
    from convotic_emulator import daemon  # noqa: PLC0415

    try:
        daemon.stop(folder)
    finally:
        store.stop(folder)


@pytest.fixture(autouse=True)
def leave_celery_as_it_was() -> Iterator[None]:
    """Give each test a fresh global state of Celery: apps, requests, revoked ids, leave to wait."""
    state: Any = celery_state
    default, current = state.default_app, state._tls.current_app
    yield
    state.default_app, state._tls.current_app = default, current
    state._set_task_join_will_block(False)
    worker_state.reset_state()
    worker_state.revoked.clear()


@pytest.fixture(autouse=True)
def leave_logging_as_it_was() -> Iterator[None]:
    """Take away what a test's program has set up: its stream is pytest's, closed at the test's end.

    Pytest's own handlers come and go with each phase of a test.
    """
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = [
        each
        for each in root.handlers
        if each in before or type(each).__module__ == "_pytest.logging"
    ]
    root.setLevel(level)
