"""A run's objects are freed when it has ended, without the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any
from weakref import ref

from tests.support.waiting import wait_until
from tests.unit.runtime.support import define, make_app, make_request, receive

if TYPE_CHECKING:
    from convotic_celery.runtime.pool.pool import TaskPool


async def wait_once(_message: Any, _ctx: Any) -> None:
    await asyncio.sleep(0)


def test_a_run_that_waited_leaves_no_ring_of_references(
    pool: TaskPool,
) -> None:
    """Its deadline referred to its task: 44 containers a message waited for the collector."""
    definition = define(wait_once, concurrency=10)
    app = make_app(definition)
    pool.app = app
    made = [
        make_request(app, definition, pool, receive(message_id=f"m{number}"))
        for number in range(10)
    ]
    requests = [ref(request) for request, *_ in made]
    messages = [message for _, message, *_ in made]
    gc.collect()
    gc.disable()
    try:
        for request, *_ in made:
            request.execute_using_pool(pool)
        del request
        made.clear()
        wait_until(lambda: all(message.settlements for message in messages))
        wait_until(lambda: sum(each() is not None for each in requests) <= 1)
    finally:
        gc.enable()
