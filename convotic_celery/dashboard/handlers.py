"""All handlers with their figures; one handler with its options, an example and last outcomes."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from convotic_celery.dashboard.desk import desk_of
from convotic_celery.dashboard.requests import answer, read_limit
from convotic_celery.dashboard.workers import sum_outcomes
from convotic_celery.dead_letters.entry import entry_id
from convotic_celery.documents.examples import build_example
from convotic_celery.documents.schemas import build_schema
from convotic_celery.sdk.options import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from convotic_celery.dashboard.desk import Desk
    from convotic_celery.dashboard.figures import Backlogs, Known
    from convotic_celery.dashboard.workers import Worker
    from convotic_celery.runtime.delivery.last_outcomes import HandlerOutcome
    from convotic_celery.sdk.handler import HandlerDefinition
    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = ["list_handlers", "routes"]


def routes() -> list[Route]:
    """Return the endpoints."""
    return [
        Route("/api/handlers", get_handlers),
        Route("/api/handlers/{queue:path}", get_handler),
        Route("/api/outcomes/{queue:path}", get_outcomes),
        Route("/api/workers", get_workers),
    ]


async def get_handlers(request: Request) -> Response:
    """Answer all handlers with their figures."""
    desk = desk_of(request)
    figures = desk.figures
    backlogs, workers, paused, dead_letters = await asyncio.gather(
        figures.backlogs.get(),
        figures.workers(),
        figures.paused.get(),
        figures.dead_letters.get(),
    )
    dynamic = Changing(backlogs.value, workers.value, paused.value, dead_letters.value)
    return answer(
        {
            "handlers": list_handlers(desk, dynamic),
            "backlogs": {
                "age_seconds": _figures_age(backlogs),
                "problem": backlogs.problem or _explain_unknown(desk, backlogs),
            },
            "workers": {
                "count": None if workers.value is None else len(workers.value),
                "problem": workers.problem,
            },
            "store": {"problem": dead_letters.problem},
        }
    )


async def get_handler(request: Request) -> Response:
    """Answer all that is known of one handler."""
    desk = desk_of(request)
    definition = desk.handler(request.path_params["queue"])
    return answer(await asyncio.to_thread(describe_handler, desk, definition))


async def get_outcomes(request: Request) -> Response:
    """Answer how a handler's last deliveries ended, the newest first."""
    desk = desk_of(request)
    queue = desk.handler(request.path_params["queue"]).queue
    outcomes = desk.app.last_outcomes
    limit = read_limit(request, 20)
    found = await asyncio.to_thread(outcomes.last, queue, limit)
    return answer({"items": [_show_outcome(each) for each in found], "is_on": outcomes.is_on})


async def get_workers(request: Request) -> Response:
    """Answer the workers that answer."""
    desk = desk_of(request)
    known = await desk.figures.workers()
    return answer(
        {
            "workers": known.value,
            "age_seconds": known.age_seconds,
            "problem": known.problem,
        }
    )


@dataclass(frozen=True, slots=True)
class Changing:
    """What changes by itself; None: not known."""

    backlogs: Backlogs | None
    workers: list[Worker] | None
    paused: set[str] | None
    #: Open ones, by handler.
    dead_letters: Mapping[str, int] | None


def list_handlers(desk: Desk, now: Changing) -> list[dict[str, Any]]:
    """Return a row for each handler; None: not known.

    If no worker answers, none may be running, or none may have answered in time.
    """
    workers, sizes, dead = now.workers or (), now.backlogs, now.dead_letters
    outcomes = sum_outcomes(workers)
    running: dict[str, int] = {}
    for worker in workers:
        for each in worker.running:
            running[each.handler] = running.get(each.handler, 0) + 1
    return [
        {
            "name": d.queue,
            "topic": d.topic,
            "module": d.module,
            "paused": None if now.paused is None else d.queue in now.paused,
            **_size("", sizes.waiting.get(d.queue) if sizes else None),
            "dead_letters_waiting": _messages(sizes.dead_letters, d.queue) if sizes else None,
            "dead_letters": None if dead is None else dead.get(d.queue, 0),
            "running": running.get(d.queue, 0) if workers else None,
            "outcomes": outcomes.get(d.queue, {}) if workers else None,
        }
        for d in desk.app.definitions
    ]


def describe_handler(desk: Desk, definition: HandlerDefinition) -> dict[str, Any]:
    """Return what does not change by itself: names, options, payload and an example of it."""
    schema = build_schema(definition.payload_type)
    spec = desk.app.conf.broker_transport_options["queues"][definition.queue]
    kind = definition.payload_type
    return {
        "name": definition.queue,
        "topic": definition.topic,
        "module": definition.module,
        "module_version": definition.module_version,
        "source": definition.source,
        "description": inspect.getdoc(definition.handler) or "",
        "is_async": definition.is_async,
        "subscription": spec.subscription,
        "dead_letter_topic": spec.dead_letter_topic,
        "filter": definition.filter_expression,
        "options": _options(definition.options),
        "payload_type": getattr(kind, "__name__", None) or (str(kind) if kind else "any JSON"),
        "payload_schema": schema,
        "example": build_example(schema),
        "siblings": [
            d.queue
            for d in desk.app.definitions
            if d.topic == definition.topic and d.queue != definition.queue
        ],
    }


def _show_outcome(outcome: HandlerOutcome) -> dict[str, Any]:
    dead_letter = entry_id(outcome.handler, outcome.message_id)
    is_dead = outcome.outcome == "dead_lettered"
    return asdict(outcome) | {"dead_letter": dead_letter if is_dead else None}


def _options(options: WorkerOptions) -> list[dict[str, Any]]:
    """Return each option with its value, and whether that differs from the default."""
    values = options.model_dump(mode="json")
    fields = WorkerOptions.model_fields
    return [
        {
            "name": name,
            "value": value,
            "is_set": name in options.model_fields_set,
            "description": fields[name].description or "",
        }
        for name, value in values.items()
    ]


def _size(prefix: str, size: BacklogSize | None) -> dict[str, Any]:
    if size is None:
        return dict.fromkeys((f"{prefix}messages", f"{prefix}leased", f"{prefix}oldest_seconds"))
    return {
        f"{prefix}messages": size.messages,
        f"{prefix}leased": size.leased,
        f"{prefix}oldest_seconds": size.oldest_age_seconds,
    }


def _messages(sizes: Mapping[str, BacklogSize], queue: str) -> int | None:
    size = sizes.get(queue)
    return None if size is None else size.messages


def _figures_age(backlogs: Known[Backlogs]) -> float | None:
    if backlogs.value is None:
        return None
    oldest = [size.figures_age_seconds for size in backlogs.value.waiting.values()]
    return backlogs.age_seconds + max(oldest, default=0.0)


def _explain_unknown(desk: Desk, backlogs: Known[Backlogs]) -> str:
    if backlogs.value is None:
        return "Not read yet."
    if desk.app.definitions and not backlogs.value.waiting:
        return (
            "Queue lengths are not known: on the service they need roles/monitoring.viewer, and "
            "Google's emulator has none. Subscriptions that do not exist yet have none either."
        )
    return ""
