"""Runs that can't be stopped are counted while they last."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import threading
from typing import Any

from celery.worker import state

from convotic_celery.runtime.delivery.counters import count_overdue
from convotic_celery.runtime.pool.pool import TaskPool
from tests.support.waiting import PATIENCE, wait_until
from tests.unit.runtime.support import define, make_app, make_request


def test_a_plain_run_past_its_deadline_is_counted() -> None:
    """By its handler, from the end of its lease to its own end."""
    go_on = threading.Event()

    def block(message: Any, ctx: Any) -> None:
        go_on.wait(PATIENCE)

    definition = define(block, ack_deadline=1, deadline_grace=0)
    app, pool = make_app(definition), TaskPool(1)
    pool.app = app
    pool.start()
    request, message, _ = make_request(app, definition, pool)
    state.task_reserved(request)
    try:
        assert count_overdue() == {}
        request.execute_using_pool(pool)
        wait_until(lambda: count_overdue() == {definition.queue: 1})
        assert not message.settlements

        go_on.set()
        wait_until(message.settled.is_set)
        wait_until(lambda: count_overdue() == {})
    finally:
        go_on.set()
        state.task_ready(request)
        pool.stop()
