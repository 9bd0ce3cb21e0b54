"""Delayed messages and workflow runs: both are in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from starlette.exceptions import HTTPException
from starlette.routing import Route

from convotic_celery.dashboard.desk import desk_of
from convotic_celery.dashboard.requests import answer, read_limit
from convotic_celery.dead_letters.payload_text import indent_json
from convotic_celery.names import workflow_of, workflow_topic
from convotic_celery.sdk.workflow import step_names

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from convotic_celery.context import AsyncWorkflowService
    from convotic_celery.context.scheduled_listing import DelayedMessage
    from convotic_celery.context.workflow_runs import WorkflowRun, WorkflowStatus
    from convotic_celery.dashboard.desk import Desk

__all__ = ["routes"]


def routes() -> list[Route]:
    """Return the endpoints."""
    return [
        Route("/api/delayed", list_delayed),
        Route("/api/delayed/{id}", get_delayed),
        Route("/api/delayed/{id}/cancel", cancel_delayed, methods=["POST"]),
        Route("/api/workflows", list_runs),
        Route("/api/workflows/{id:path}/resume", resume_run, methods=["POST"]),
        Route("/api/workflows/{id:path}", get_run),
    ]


async def list_delayed(request: Request) -> Response:
    """Answer a page of delayed messages, the next one due first."""
    desk = desk_of(request)
    total, page = await desk.app.services.async_schedule.list(
        limit=read_limit(request), cursor=request.query_params.get("cursor")
    )
    items = [_show_delayed(desk, each) for each in page.items]
    return answer({"total": total, "items": items, "next_cursor": page.next_cursor})


async def get_delayed(request: Request) -> Response:
    """Answer one delayed message with all its data."""
    desk = desk_of(request)
    found = await desk.app.services.async_schedule.get(request.path_params["id"])
    if found is None:
        raise HTTPException(404, "This message no longer waits: it was published or cancelled.")
    return answer(_show_delayed(desk, found))


async def cancel_delayed(request: Request) -> Response:
    """Cancel a delayed message."""
    pubsub = desk_of(request).app.services.async_pubsub()
    return answer({"cancelled": await pubsub.cancel(request.path_params["id"])})


async def list_runs(request: Request) -> Response:
    """Answer a page of workflow runs, the newest first."""
    desk, query = desk_of(request), request.query_params
    page = await _workflows(desk).list(
        query.get("name") or None,
        status=cast("WorkflowStatus | None", query.get("status") or None),
        limit=read_limit(request),
        cursor=query.get("cursor") or None,
    )
    names = [name for d in desk.app.definitions if (name := workflow_of(d.topic))]
    items = [run.model_dump(mode="json") for run in page.items]
    return answer({"items": items, "next_cursor": page.next_cursor, "workflows": names})


async def get_run(request: Request) -> Response:
    """Answer one run with its input and results."""
    desk = desk_of(request)
    return answer(_show_run(desk, await _workflows(desk).get(request.path_params["id"])))


async def resume_run(request: Request) -> Response:
    """Continue a run with its next step."""
    desk = desk_of(request)
    return answer(_show_run(desk, await _workflows(desk).resume(request.path_params["id"])))


def _workflows(desk: Desk) -> AsyncWorkflowService:
    services = desk.app.services
    return services.async_workflows(services.async_pubsub())


def _show_delayed(desk: Desk, message: DelayedMessage) -> dict[str, Any]:
    shown = message.model_dump(mode="json") | {"is_cut": message.is_cut}
    if not desk.shows_payloads:
        return shown | {"data": None, "attributes": None}
    return shown if message.is_cut else shown | {"data": indent_json(message.data)}


def _show_run(desk: Desk, run: WorkflowRun) -> dict[str, Any]:
    topic = workflow_topic(run.name)
    steps = [step_names(d.handler) for d in desk.app.definitions if d.topic == topic]
    shown = run.model_dump(mode="json") | {"steps": steps[0] if steps else ()}
    if not desk.shows_payloads:
        shown |= {"input": None, "results": dict.fromkeys(run.results), "is_hidden": True}
    return shown
