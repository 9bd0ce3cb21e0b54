"""``create_dashboard``: the application that shows a deployment in a browser."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.dashboard import dead_letters, handlers, publishing, waiting
from convotic_celery.dashboard.desk import Desk, desk_of
from convotic_celery.dashboard.figures import Figures
from convotic_celery.dashboard.guard import Guard
from convotic_celery.dashboard.requests import answer
from convotic_celery.errors import (
    ContextError,
    DeadLetterError,
    DeadLetterNotFound,
    HandlerNotLoaded,
    PublishNotConfirmed,
    PublishRefused,
    StoreUnavailable,
    WorkflowRunNotFound,
)
from convotic_pubsub.errors import PubsubTransportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from convotic_celery.settings import Settings

__all__ = ["create_dashboard"]

logger = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"
#: Errors that are a person's to read, and their status. The first that fits.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (StoreUnavailable, 503),
    (PublishNotConfirmed, 503),
    (WorkflowRunNotFound, 404),
    (DeadLetterNotFound, 404),
    (DeadLetterError, 409),
    (HandlerNotLoaded, 400),
    (PublishRefused, 400),
    (ContextError, 400),
    (PubsubTransportError, 503),
    (ValueError, 400),
)


def create_dashboard(
    settings: Settings | None = None,
    *,
    app: ConvoticApp | None = None,
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """Load the modules and return the ASGI application of the dashboard.

    It connects when the page is open. There is no authentication: it accepts requests for this
    machine's own names and those in ``dashboard_hosts``; put a gateway in front for others.

    Args:
        settings: None reads them from the environment.
        app: An app made already, instead of settings.
        middleware: Starlette's, e.g. for authentication; inside the checks of Host and Origin.

    Raises:
        ConfigurationError: A setting is wrong.
        ModuleError: A module can't be loaded.
    """
    app = app or create_app(settings, set_as_current=False)
    guard = Middleware(
        Guard, names=app.settings.dashboard_hosts, read_only=app.settings.dashboard_read_only
    )
    application = Starlette(
        routes=[
            Route("/", _send_page),
            Route("/api/deployment", get_deployment),
            Route("/api/badges", get_badges),
            *handlers.routes(),
            *dead_letters.routes(),
            *waiting.routes(),
            *publishing.routes(),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[guard, *middleware],
        exception_handlers={
            HTTPException: _answer_http_error,
            **{kind: _answer_known_error for kind, _ in _STATUSES},
            Exception: _answer_error,
        },
        lifespan=_lifespan,
    )
    application.state.desk = Desk(app, Figures(app))
    return application


async def get_deployment(request: Request) -> Response:
    """Answer which deployment this shows."""
    desk = desk_of(request)
    settings = desk.app.settings
    broker = "embedded emulator" if settings.broker_is_embedded else "Pub/Sub"
    if settings.pubsub_emulator_host:
        broker = f"emulator at {settings.pubsub_emulator_host}"
    return answer(
        {
            "project": urlsplit(desk.app.conf.broker_url).hostname or "",
            "broker": broker,
            "environment": settings.env,
            "prefix": settings.prefix,
            "data_dir": str(settings.data_dir.resolve())
            if settings.broker_is_embedded or settings.store_is_embedded
            else None,
            "read_only": desk.is_read_only,
            "shows_payloads": desk.shows_payloads,
        }
    )


async def _send_page(_request: Request) -> Response:
    return FileResponse(_STATIC / "index.html")


@asynccontextmanager
async def _lifespan(application: Starlette) -> AsyncIterator[None]:
    desk: Desk = application.state.desk
    yield
    desk.jobs.shutdown(wait=False, cancel_futures=True)
    desk.figures.close()
    await desk.app.store.aclose()
    desk.app.store.close()


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer({"error": str(error.detail)}, error.status_code)


async def _answer_known_error(_request: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    return answer({"error": str(error)}, status)


async def _answer_error(request: Request, error: Exception) -> Response:
    logger.error("The dashboard failed to answer %s", request.url.path, exc_info=error)
    return answer({"error": f"{type(error).__name__}: see the dashboard's log."}, 500)


async def get_badges(request: Request) -> Response:
    """Answer the numbers in the menu, without unknown ones."""
    desk = desk_of(request)
    found: dict[str, int] = {}
    counts = await desk.figures.dead_letters.get()
    if counts.value is not None:
        found["dead-letters"] = sum(counts.value.values())
    try:
        found["delayed"], _ = await desk.app.services.async_schedule.list(limit=1)
    except StoreUnavailable:
        logger.debug("The numbers of the dashboard's menu can't be read", exc_info=True)
    return answer(found)
