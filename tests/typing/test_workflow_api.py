"""Workflows and middleware as type checkers see them: mypy and basedpyright check this."""

# ruff: noqa: ARG001 - what is not used shows the types

from __future__ import annotations

from typing import Any, assert_type

from celery import chain, group, shared_task
from pydantic import JsonValue

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    Page,
    RouteMiddleware,
    RouteRequest,
    RouteResponse,
    SyncConvoticContext,
    WorkerMessage,
    WorkerMiddleware,
    WorkflowRun,
)
from convotic_celery.context import WorkflowRunSummary


@shared_task
def charge(order: dict[str, int]) -> str:
    return "paid"


async def reserve(run: WorkflowRun, ctx: ConvoticContext) -> int:
    assert_type(run.result("collect", int), int)
    assert_type(run.result("collect"), JsonValue)
    return run.step


module = ConvoticModule(name="typed-workflows", version="1.0.0")
module.workflow(
    "fulfil",
    steps=[reserve, charge, ("both", group(charge.s(), charge.s())), ("then", chain(charge.s()))],
    max_retries=3,
)


class Timing(WorkerMiddleware):
    async def before(self, message: WorkerMessage[Any], ctx: ConvoticContext) -> None: ...


class Access(RouteMiddleware):
    def after(
        self, request: RouteRequest[Any], ctx: SyncConvoticContext, response: RouteResponse[Any]
    ) -> None: ...


module.use(Timing())
module.use(Access())


async def ask(ctx: ConvoticContext, plain: SyncConvoticContext) -> None:
    assert_type(await ctx.workflows.get("1"), WorkflowRun)
    assert_type(await ctx.workflows.list("fulfil", status="failed"), Page[WorkflowRunSummary])
    assert_type(plain.workflows.list(), Page[WorkflowRunSummary])


def test_steps_and_runs_are_typed() -> None:
    """Checked by mypy and basedpyright; here it only has to import."""
    (handler,) = module.collect_handlers()

    assert handler.topic == "workflow.fulfil"
