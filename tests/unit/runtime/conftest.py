"""Fixtures of the runtime's unit tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from convotic_celery.runtime.pool.pool import TaskPool


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    """A running pool without an app; tests set ``pool.app``."""
    running = TaskPool(4)
    running.start()
    yield running
    running.terminate()


@pytest.fixture(params=["ours", "threads", "solo"])
def any_pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each pool that runs in this process."""
    pools: dict[str, Callable[[], Any]] = {
        "ours": lambda: TaskPool(2),
        "threads": lambda: ThreadPool(2),
        "solo": lambda: SoloPool(1),
    }
    pool = pools[request.param]()
    pool.start()
    yield pool
    pool.stop()
