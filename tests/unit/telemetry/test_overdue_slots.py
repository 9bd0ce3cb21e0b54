"""How many calls of a handler hold their slots past their time, and whether that is all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool

from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.telemetry import probes
from convotic_celery.telemetry.probes import WorkerProbes

NAME = "orders.shop"


def find_overdue(
    monkeypatch: pytest.MonkeyPatch,
    pool: Any,
    *,
    messages: int,
    concurrency: int,
    is_async: bool = False,
    batches: int | None = None,
) -> list[str]:
    """Return what is said of a handler of whose messages so many are overdue."""
    task = SimpleNamespace(
        definition=SimpleNamespace(options=SimpleNamespace(concurrency=concurrency)),
        execution=SimpleNamespace(
            batches=None if batches is None else SimpleNamespace(overdue=batches)
        ),
        runs_on_loop=is_async or batches is not None,
    )
    app = SimpleNamespace(tasks={NAME: task}, definitions=[SimpleNamespace(queue=NAME)])
    worker = SimpleNamespace(app=app, pool=pool)
    overdue = {NAME: messages} if messages else {}
    monkeypatch.setattr(probes, "count_overdue", lambda: overdue)
    return list(WorkerProbes(worker, list, lambda: 0.0)._overdue_slots())


@pytest.mark.parametrize(
    ("batches", "said"), [(1, []), (2, [f"{NAME}, 2"])], ids=["one of two", "both"]
)
@pytest.mark.parametrize("messages", [100, 0], ids=["running", "stopped"])
def test_slots_of_a_batch_handler_are_its_batches(
    monkeypatch: pytest.MonkeyPatch, messages: int, batches: int, said: list[str]
) -> None:
    """One batch of a hundred messages holds one slot, also when its runs were stopped."""
    found = find_overdue(
        monkeypatch, TaskPool(1), messages=messages * batches, concurrency=2, batches=batches
    )

    assert found == said


@pytest.mark.parametrize(
    ("pool", "is_async", "slots"),
    [
        (TaskPool(2), True, 10),  # coroutines have no bound but their own
        (TaskPool(2), False, 2),  # two threads
        (PreforkPool(2), False, 2),
        (SoloPool(1), False, 1),
    ],
    ids=["coroutines", "threads", "prefork", "solo"],
)
def test_a_pool_bounds_the_slots(
    monkeypatch: pytest.MonkeyPatch, pool: Any, is_async: bool, slots: int
) -> None:
    """Of ten messages at a time, as many as the pool runs."""
    monkeypatch.setattr(type(pool), "num_processes", pool.limit, raising=False)

    def found(messages: int) -> list[str]:
        return find_overdue(monkeypatch, pool, messages=messages, concurrency=10, is_async=is_async)

    assert found(slots) == [f"{NAME}, {slots}"]
    assert not found(slots - 1)
