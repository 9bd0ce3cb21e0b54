"""Steps of workflows that are Celery canvas: in the test's process, run where they are started."""

# ruff: noqa: ARG001 - steps take (run, ctx), used or not

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group, shared_task

from convotic_celery import ConvoticContext, ConvoticModule, WorkflowRun
from convotic_celery.errors import ModuleError
from convotic_celery.testing import convotic_app


@shared_task(name="test_canvas.add")
def add(number: int, other: int = 1) -> int:
    """Add."""
    return number + other


@shared_task(name="test_canvas.add_up")
def add_up(numbers: list[int]) -> int:
    """Add them all up."""
    return sum(numbers)


@shared_task(name="test_canvas.fail")
def fail(number: int) -> None:
    """Fail."""
    raise ValueError(f"not {number}")


async def double(run: WorkflowRun, ctx: ConvoticContext) -> int:
    assert isinstance(run.results["add"], int)
    return 2 * run.results["add"]


async def run_to_its_end(*steps: Any, value: object = 1) -> WorkflowRun:
    module = ConvoticModule(name="shop", version="1")
    module.workflow("sums", steps=steps)
    async with convotic_app(module) as app:
        started = await app.ctx.workflows.start("sums", value)
        await app.drain()
        return await app.ctx.workflows.get(started.id)


async def test_a_step_gets_what_the_one_before_returned() -> None:
    """The first one the input; tasks, functions and canvas in any order."""
    run = await run_to_its_end(
        add,
        double,
        ("both", group(add.s(10), add.s(20))),
        ("sum", chord([add_up.s(), add_up.s()], add_up.s())),
        ("fixed", chain(add.si(1, 2), add.s(3))),
    )

    assert run.status == "completed"
    assert run.results == {"add": 2, "double": 4, "both": [14, 24], "sum": 76, "fixed": 6}


async def test_a_task_that_fails_fails_the_run() -> None:
    """The error is kept; the step is the one that stands."""
    run = await run_to_its_end(add, fail)

    assert (run.status, run.step, run.step_name) == ("failed", 1, "fail")
    assert run.error == "ValueError: not 2"


@shared_task(name="test_canvas.tell_long")
def tell_long(number: int) -> str:
    """Return more than a run keeps."""
    return "x" * 1_100_000


async def test_a_result_that_is_too_large_fails_the_run() -> None:
    """It would be so the next time."""
    run = await run_to_its_end(tell_long)

    assert (run.status, run.step_name) == ("failed", "tell_long")
    assert "a workflow allows 1,000,000" in (run.error or "")


async def test_plain_steps_go_with_canvas_too() -> None:
    """Canvas is neither async nor plain."""

    def triple(run: WorkflowRun, ctx: Any) -> int:
        assert isinstance(run.results["add"], int)
        return 3 * run.results["add"]

    run = await run_to_its_end(add.s(4), triple)

    assert run.results == {"add": 5, "triple": 15}


def test_canvas_needs_a_name() -> None:
    """A task has one; a group has not."""
    module = ConvoticModule(name="shop", version="1")

    with pytest.raises(ModuleError, match=r'a group has no name.*\("name", group\(\.\.\.\)\)'):
        module.workflow("sums", steps=[group(add.s(1), add.s(2))])
