"""Workflows: started by name, kept in the store, gone on with after a crash."""

# ruff: noqa: ARG001, ARG002 - steps take (run, ctx), used or not

from __future__ import annotations

import uuid
from typing import Any

import pytest

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    SyncConvoticContext,
    WorkflowRun,
)
from convotic_celery.errors import InvalidField, ModuleError, WorkflowRunNotFound
from convotic_celery.testing import AppUnderTest, convotic_app


class Steps:
    """Three steps, of which ``charge`` fails as often as the test wants."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures = 0

    async def reserve(self, run: WorkflowRun, ctx: ConvoticContext) -> dict[str, Any]:
        self.done.append("reserve")
        assert isinstance(run.input, dict)
        return {"place": run.input["order"]}

    async def charge(self, run: WorkflowRun, ctx: ConvoticContext) -> str:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the bank is away")
        self.done.append("charge")
        return f"charged for {run.results['reserve']}"

    async def ship(self, run: WorkflowRun, ctx: ConvoticContext) -> None:
        self.done.append("ship")


def make_module(steps: Steps, **options: Any) -> ConvoticModule:
    module = ConvoticModule(name="shop", version="1")
    module.workflow("fulfil", steps=[steps.reserve, steps.charge, steps.ship], **options)
    return module


async def test_steps_run_in_order() -> None:
    """Each sees what those before it returned; the end is remembered."""
    steps = Steps()
    async with convotic_app(make_module(steps)) as app:
        started = await app.ctx.workflows.start("fulfil", {"order": 7})
        assert (started.status, started.step) == ("running", 0)
        await app.drain()

        run = await app.ctx.workflows.get(started.id)

    assert steps.done == ["reserve", "charge", "ship"]
    assert (run.status, run.step, run.error) == ("completed", 3, None)
    assert run.results == {
        "reserve": {"place": 7},
        "charge": "charged for {'place': 7}",
        "ship": None,
    }
    assert run.updated_at >= run.created_at


async def test_a_step_that_fails_is_retried() -> None:
    """Only that one: those before it are not run again."""
    steps = Steps()
    steps.failures = 2
    async with convotic_app(make_module(steps, max_retries=2)) as app:
        started = await app.ctx.workflows.start("fulfil", {"order": 7})
        await app.drain()

        assert (await app.ctx.workflows.get(started.id)).status == "completed"
    assert steps.done == ["reserve", "charge", "ship"]


async def fail_for_good(app: AppUnderTest, steps: Steps) -> str:
    """Have a run fail at its second step."""
    steps.failures = 1
    started = await app.ctx.workflows.start("fulfil", {"order": 7})
    await app.drain()
    run = await app.ctx.workflows.get(started.id)
    assert (run.status, run.step) == ("failed", 1)
    assert run.error == "ConnectionError: the bank is away"
    return run.id


async def test_a_failed_run_can_be_resumed() -> None:
    """It goes on where it stood."""
    steps = Steps()
    async with convotic_app(make_module(steps, max_retries=0)) as app:
        run_id = await fail_for_good(app, steps)

        await app.ctx.workflows.resume(run_id)
        await app.drain()

        assert (await app.ctx.workflows.get(run_id)).status == "completed"
    assert steps.done == ["reserve", "charge", "ship"]


async def test_replaying_the_dead_letter_resumes_the_run() -> None:
    """As an operator does it with any message."""
    steps = Steps()
    async with convotic_app(make_module(steps, max_retries=0)) as app:
        run_id = await fail_for_good(app, steps)

        await app.replay(app.dead_letters[0])
        await app.drain()

        assert (await app.ctx.workflows.get(run_id)).status == "completed"


async def test_an_own_id_starts_once() -> None:
    """However often it is started; the first input counts."""
    steps, run_id = Steps(), f"order-{uuid.uuid4().hex}"
    async with convotic_app(make_module(steps)) as app:
        await app.ctx.workflows.start("fulfil", {"order": 1}, run_id=run_id)
        await app.ctx.workflows.start("fulfil", {"order": 2}, run_id=run_id)
        await app.drain()
        await app.ctx.workflows.start("fulfil", {"order": 3}, run_id=run_id)
        await app.drain()

        run = await app.ctx.workflows.get(run_id)

    assert run.input == {"order": 1}
    assert steps.done == ["reserve", "charge", "ship"]


async def test_a_crash_before_the_next_publish_is_made_up_for() -> None:
    """The step is recorded, its worker dies: its message is redelivered and publishes the next."""
    steps = Steps()
    async with convotic_app(make_module(steps)) as app:
        run_id = (await app.ctx.workflows.start("fulfil", {"order": 7})).id
        database_run = await app.ctx.workflows.get(run_id)
        broker = app._broker
        first = broker.pending[:]
        await app.ctx.workflows.end_step(database_run, "reserve", {"place": 7}, is_last=False)
        broker.pending[:] = first  # what end_step published is lost with its process

        await app.drain()

        assert (await app.ctx.workflows.get(run_id)).status == "completed"
    assert steps.done == ["charge", "ship"]


async def test_plain_steps_and_plain_callers() -> None:
    """A handler that is plain def starts a workflow whose steps are."""
    module, seen = ConvoticModule(name="shop", version="1"), []

    def count(run: WorkflowRun, ctx: SyncConvoticContext) -> int:
        return 1

    def tell(run: WorkflowRun, ctx: SyncConvoticContext) -> None:
        seen.append(run.results)

    module.workflow("counting", steps=[count, tell])

    @module.worker("orders")
    def handle(message: Any, ctx: SyncConvoticContext) -> None:
        ctx.workflows.start("counting", message.data)

    async with convotic_app(module) as app:
        await app.publish("orders", data=1)
        await app.drain()

    assert seen == [{"count": 1}]


async def list_ids(app: AppUnderTest, *names: str, **filters: Any) -> list[str]:
    """Return the ids of all pages of a list of runs."""
    ids, cursor = [], None
    while True:
        page = await app.ctx.workflows.list(*names, limit=2, cursor=cursor, **filters)
        assert len(page.items) <= 2
        ids += [run.id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


async def test_runs_are_listed_by_workflow_and_state() -> None:
    """The newest first, page by page; each where it stands now."""
    steps = Steps()
    module = make_module(steps, max_retries=0)
    module.workflow("other", steps=[steps.ship])
    async with convotic_app(module) as app:
        start = app.ctx.workflows.start
        for number in range(3):
            await start("fulfil", {"order": number}, run_id=f"run-{number}")
            await app.drain()
        steps.failures = 1
        await start("fulfil", {"order": 3}, run_id="failed")
        await app.drain()
        await start("other", run_id="other")
        await start("other", run_id="other")

        done = ["run-2", "run-1", "run-0"]
        assert await list_ids(app) == ["other", "failed", *done]
        assert await list_ids(app, "fulfil") == ["failed", *done]
        assert await list_ids(app, "fulfil", status="completed") == done
        assert await list_ids(app, status="failed") == ["failed"]
        assert await list_ids(app, status="running") == ["other"]
        assert await list_ids(app, "other", status="failed") == []
        (failed,) = (await app.ctx.workflows.list(status="failed")).items
        assert (failed.name, failed.step, failed.step_name) == ("fulfil", 1, "charge")
        assert failed.error == "ConnectionError: the bank is away"

        await app.ctx.workflows.resume("failed")
        assert await list_ids(app, status="running") == ["other", "failed"]
        await app.drain()
        assert await list_ids(app, status="completed") == ["other", "failed", *done]
        assert await list_ids(app, status="failed") == await list_ids(app, status="running") == []


async def test_runs_that_are_gone_leave_the_lists() -> None:
    """When they are met, and a few with each new run: an index does not grow without end."""
    async with convotic_app(make_module(Steps())) as app:
        for number in range(3):
            await app.ctx.workflows.start("fulfil", {"order": 0}, run_id=f"run-{number}")
            await app.drain()
        client, keys = app.app.store.async_client(), app.app.settings.store_key_prefix
        assert 0 < await client.ttl(f"{keys}workflow:run-0") <= 30 * 24 * 3600
        await client.delete(f"{keys}workflow:run-0", f"{keys}workflow:run-1")

        assert await list_ids(app, status="completed") == ["run-2"]
        await app.ctx.workflows.start("fulfil", {"order": 0}, run_id="run-0")
        assert await list_ids(app) == ["run-0", "run-2"]
        assert await client.zcard(f"{keys}workflows:fulfil:") == 2
        assert await client.zcard(f"{keys}workflows:fulfil:completed") == 1


async def test_a_page_has_a_limit() -> None:
    """As the other services' pages."""
    async with convotic_app(make_module(Steps())) as app:
        with pytest.raises(InvalidField, match="1 to 1000"):
            await app.ctx.workflows.list(limit=0)


async def test_an_unknown_run_is_told() -> None:
    """With its id."""
    async with convotic_app(make_module(Steps())) as app:
        with pytest.raises(WorkflowRunNotFound, match="no-such-run"):
            await app.ctx.workflows.get("no-such-run")


def test_steps_of_two_kinds_are_refused() -> None:
    """When they register, with the rule."""
    module = ConvoticModule(name="shop", version="1")

    def plain(run: WorkflowRun, ctx: SyncConvoticContext) -> None: ...

    with pytest.raises(ModuleError, match="all async def or all plain def"):
        module.workflow("mixed", steps=[plain, Steps().ship])
    with pytest.raises(ModuleError, match="have the same name"):
        module.workflow("twice", steps=[plain, plain])
    with pytest.raises(ModuleError, match="can't be set on a workflow"):
        module.workflow("own", steps=[plain], deduplicate="message.id")
