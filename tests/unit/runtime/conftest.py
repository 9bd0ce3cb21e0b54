"""Fixtures of the runtime's unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import _state as celery_state
from celery.worker import state as worker_state

from convotic_celery.runtime.pool import TaskPool


@pytest.fixture(autouse=True)
def leave_celery_as_it_was() -> Iterator[None]:
    """Give each test Celery's global state anew: apps, requests, revoked ids."""
    state: Any = celery_state
    default, current = state.default_app, state._tls.current_app
    yield
    state.default_app, state._tls.current_app = default, current
    worker_state.reset_state()
    worker_state.revoked.clear()


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    """A running pool without an app; tests set ``pool.app``."""
    running = TaskPool(4)
    running.start()
    yield running
    running.terminate()
