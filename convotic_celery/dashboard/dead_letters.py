"""Dead letters: by cause, one by one, and every action on them (``app.dead_letters``)."""

from __future__ import annotations

import asyncio
import getpass
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Route

from convotic_celery.dashboard.desk import desk_of
from convotic_celery.dashboard.requests import answer, read_body, read_limit
from convotic_celery.dashboard.search import asks_for_payload, parse_search
from convotic_celery.dead_letters.payload_text import indent_json
from convotic_celery.errors import ConvoticError
from convotic_pubsub.errors import PubsubTransportError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from convotic_celery.dashboard.desk import Desk
    from convotic_celery.dead_letters import DeadLetter, Match

__all__ = ["routes"]

logger = logging.getLogger(__name__)

_STATES = ("open", "archived", "replayed", "missing", "purged")


class Wanted(BaseModel):
    """Which dead letters the page means."""

    model_config = ConfigDict(extra="forbid")

    ids: tuple[str, ...] = ()
    handler: str = ""
    group: str = ""
    state: Literal["open", "archived", "replayed", "missing", "purged"] = "open"
    #: What was typed, see ``search.py``.
    search: str = ""

    def to_match(self, desk: Desk) -> Match:
        """Return it as the dead letters' API takes it."""
        known = {
            name: value for name in ("ids", "handler", "group") if (value := getattr(self, name))
        }
        match = parse_search(self.search, state=self.state, **known)
        if asks_for_payload(match) and not desk.shows_payloads:
            raise HTTPException(403, "Payloads are hidden, so they can't be searched.")
        return match


class WantedJob(Wanted):
    """What to do with them, in the background."""

    #: Another handler to replay them to.
    target: str = ""
    limit: int | None = Field(default=None, ge=1)
    #: Most messages a second; 0: as fast as possible.
    rate: float = Field(default=0.0, ge=0)


class Edit(BaseModel):
    """Other data for the next replay."""

    model_config = ConfigDict(extra="forbid")

    #: None: the original.
    data: str | None


def routes() -> list[Route]:
    """Return the endpoints."""
    base = "/api/dead-letters"
    return [
        Route(base, list_entries),
        Route(f"{base}/groups", list_groups),
        Route(f"{base}/entry/{{id}}", get_entry),
        Route(f"{base}/entry/{{id}}/edit", edit_entry, methods=["POST"]),
        Route(f"{base}/preview", preview, methods=["POST"]),
        Route(f"{base}/archive", archive, methods=["POST"]),
        Route(f"{base}/restore", restore, methods=["POST"]),
        Route(f"{base}/sync", sync, methods=["POST"]),
        Route(f"{base}/jobs", list_jobs),
        Route(f"{base}/jobs/{{id}}", get_job),
        Route(f"{base}/jobs/{{id}}/cancel", cancel_job, methods=["POST"]),
        Route(f"{base}/jobs/{{id}}/resume", resume_job, methods=["POST"]),
        Route(f"{base}/{{action}}", begin_job, methods=["POST"]),
    ]


async def list_groups(request: Request) -> Response:
    """Answer groups of dead letters with one cause, the newest first."""
    desk = desk_of(request)
    groups = await asyncio.to_thread(desk.app.dead_letters.groups, _match_of(request, desk))
    limit = read_limit(request, 200)
    items = [group.to_json() for group in groups[:limit]]
    return answer({"items": items, "total": len(groups)})


async def list_entries(request: Request) -> Response:
    """Answer a page of dead letters, the newest first."""
    desk = desk_of(request)
    page = await asyncio.to_thread(
        desk.app.dead_letters.list,
        _match_of(request, desk),
        limit=read_limit(request),
        cursor=request.query_params.get("cursor", ""),
    )
    return answer(
        {
            "items": [_show(desk, each, whole=False) for each in page.items],
            "next_cursor": page.next_cursor,
            "total": page.total,
            "is_sample": page.is_sample,
        }
    )


async def get_entry(request: Request) -> Response:
    """Answer one dead letter with its message and history."""
    desk = desk_of(request)
    found = await asyncio.to_thread(desk.app.dead_letters.show, request.path_params["id"])
    return answer(_show(desk, found, whole=True))


async def edit_entry(request: Request) -> Response:
    """Have the next replay publish other data, and answer the difference."""
    desk = desk_of(request)
    wanted = await read_body(request, Edit)
    if not desk.shows_payloads:
        raise HTTPException(403, "Payloads are hidden, so they can't be edited.")
    data = None if wanted.data is None else wanted.data.encode()
    difference = await asyncio.to_thread(
        desk.app.dead_letters.edit, request.path_params["id"], data, by=_person(request)
    )
    return answer({"difference": difference})


async def preview(request: Request) -> Response:
    """Answer how many match now, and which other subscribers would get a replay of them."""
    desk = desk_of(request)
    wanted = await read_body(request, WantedJob)
    match, dead_letters = wanted.to_match(desk), desk.app.dead_letters
    count = await asyncio.to_thread(dead_letters.count, match)
    warnings = await asyncio.to_thread(dead_letters.warnings, match, wanted.target)
    return answer({"count": count, "warnings": warnings})


async def begin_job(request: Request) -> Response:
    """Begin a replay, redirect or purge of all that matches now, and answer the job."""
    desk, action = desk_of(request), request.path_params["action"]
    if action not in {"replay", "redirect", "purge"}:
        raise HTTPException(404, f"There is no action {action}.")
    wanted = await read_body(request, WantedJob)
    if (action == "redirect") != bool(wanted.target):
        raise HTTPException(
            400, "A redirect needs a handler to replay to; other actions take none."
        )
    job = await asyncio.to_thread(
        desk.app.dead_letters.begin,
        action,
        wanted.to_match(desk),
        by=_person(request),
        limit=wanted.limit,
        rate=wanted.rate,
        target=wanted.target,
    )
    _work_on(desk, job.id)
    return answer(job.to_json())


async def resume_job(request: Request) -> Response:
    """Continue a job whose process has died."""
    desk = desk_of(request)
    job = await asyncio.to_thread(_find_job, desk, request.path_params["id"])
    _work_on(desk, job["id"], _person(request))
    return answer(job)


async def cancel_job(request: Request) -> Response:
    """Stop a job before its next batch."""
    desk = desk_of(request)
    cancelled = await asyncio.to_thread(
        desk.app.dead_letters.cancel, request.path_params["id"], by=_person(request)
    )
    return answer({"cancelled": cancelled})


async def list_jobs(request: Request) -> Response:
    """Answer the newest jobs."""
    desk = desk_of(request)
    jobs = await asyncio.to_thread(desk.app.dead_letters.jobs, read_limit(request, 10))
    return answer({"items": [job.to_json() for job in jobs]})


async def get_job(request: Request) -> Response:
    """Answer one job as it is now."""
    desk = desk_of(request)
    return answer(await asyncio.to_thread(_find_job, desk, request.path_params["id"]))


async def archive(request: Request) -> Response:
    """Archive what matches."""
    desk = desk_of(request)
    match = (await read_body(request, Wanted)).to_match(desk)
    moved = await asyncio.to_thread(desk.app.dead_letters.archive, match, by=_person(request))
    desk.figures.dead_letters.expire()
    return answer({"count": moved})


async def restore(request: Request) -> Response:
    """Undo that, for what matches among the archived."""
    desk = desk_of(request)
    match = (await read_body(request, Wanted)).to_match(desk)
    moved = await asyncio.to_thread(
        desk.app.dead_letters.restore, replace(match, state="archived"), by=_person(request)
    )
    desk.figures.dead_letters.expire()
    return answer({"count": moved})


async def sync(request: Request) -> Response:
    """Bring the index in line with the dead-letter subscriptions."""
    desk = desk_of(request)
    wanted = await read_body(request, Wanted)
    reports = await asyncio.to_thread(
        desk.app.dead_letters.sync, wanted.handler, by=_person(request)
    )
    return answer(
        {
            "taken_in": sum(report.taken_in for report in reports),
            "missing": sum(report.missing for report in reports),
            "is_complete": all(report.is_complete for report in reports),
        }
    )


def _match_of(request: Request, desk: Desk) -> Match:
    query = request.query_params
    state = query.get("state", "open")
    if state not in _STATES:
        raise HTTPException(400, f"state is one of {', '.join(_STATES)}.")
    wanted = Wanted(
        handler=query.get("handler", ""),
        group=query.get("group", ""),
        state=state,
        search=query.get("search", ""),
    )
    return wanted.to_match(desk)


def _show(desk: Desk, dead: DeadLetter, *, whole: bool) -> dict[str, Any]:
    shown = dead.to_json(with_payload=whole and desk.shows_payloads)
    if whole and shown.get("data"):
        shown["data"] = indent_json(shown["data"])
    return shown | {"is_hidden": not desk.shows_payloads}


def _find_job(desk: Desk, job: str) -> dict[str, Any]:
    try:
        return desk.app.dead_letters.job(job).to_json()
    except LookupError as error:
        raise HTTPException(404, str(error.args[0])) from None


def _work_on(desk: Desk, job: str, by: str = "") -> None:
    """Do a job in the background. If this process dies, another one can continue it."""

    def work() -> None:
        try:
            desk.app.dead_letters.resume(job, by=by)
        except (ConvoticError, PubsubTransportError) as error:
            logger.warning("Job %s of dead letters stopped; it can be resumed: %s", job, error)
        except Exception:
            logger.exception("Job %s of dead letters has failed", job)

    desk.jobs.submit(work)


def _person(request: Request) -> str:
    """Return the person who acts: a proxy's login, or else the user who runs the dashboard."""
    user = request.scope.get("user")
    name = getattr(user, "display_name", "") or getpass.getuser()
    return f"{name} (dashboard)"
