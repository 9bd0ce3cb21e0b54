"""What all unit tests share: they run in one process, one after the other."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.support.imports import forget_imports

#: Threads of the process that tests share: its event loops, and the threads of loops.
SHARED = ("convotic-handlers", "convotic-emulator", "asyncio_")


@pytest.fixture(autouse=True)
def hear_no_other_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep out of ``caplog`` what is logged by threads that earlier tests have left behind.

    A pool that was ended cold, a store that is tried again: they may log at any time, and many
    tests count lines.
    """
    others = {each for each in threading.enumerate() if not each.name.startswith(SHARED)}
    others.discard(threading.current_thread())

    def is_heard(_record: logging.LogRecord) -> bool:
        return threading.current_thread() not in others

    caplog.handler.addFilter(is_heard)
    yield
    caplog.handler.removeFilter(is_heard)


@pytest.fixture(autouse=True)
def forget_own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test has written and loaded: another one's may have their names."""
    before, path = set(sys.modules), sys.path[:]
    yield
    sys.path[:] = path
    forget_imports(set(sys.modules) - before, tmp_path_factory.getbasetemp())
