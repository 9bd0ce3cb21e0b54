"""``create_asgi_app``: the Starlette application that answers the routes of all modules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.documents.openapi import build_openapi
from convotic_celery.documents.page import CONTENT_SECURITY_POLICY, render_openapi
from convotic_celery.routes.endpoint import Endpoint
from convotic_celery.routes.problems import describe_http_error, problem_response
from convotic_celery.runtime.worker.lifespans import one_of_each
from convotic_celery.sdk.http import Problem
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.requests import Request

    from convotic_celery.sdk.route import RouteDefinition
    from convotic_celery.settings import Settings

__all__ = ["create_asgi_app"]

logger = logging.getLogger(__name__)


def create_asgi_app(
    settings: Settings | None = None,
    *,
    app: ConvoticApp | None = None,
    middleware: Sequence[Middleware] = (),
    documents: bool = True,
) -> Starlette:
    """Load the modules and return the application that answers their routes.

    Nothing is started and no connection is made; the first publish connects, and so does the start
    of a server that knows ASGI's lifespan.

    Args:
        settings: None reads them from the environment.
        app: An app made already, instead of settings.
        middleware: Starlette's, e.g. for authentication: there is none built in.
        documents: Serve ``/openapi.json`` and ``/docs``.

    Raises:
        ConfigurationError: A setting is wrong.
        ModuleError: A module can't be loaded.
    """
    app = app or create_app(settings, set_as_current=False)
    return Starlette(
        routes=[*(_document_routes(app.routes) if documents else ()), *_module_routes(app)],
        middleware=list(middleware),
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_error},
        lifespan=_lifespan_of(app),
    )


def _module_routes(app: ConvoticApp) -> Iterable[Route]:
    """Yield one Starlette route for each path: it answers all methods, so that 405 knows them."""
    by_path: dict[str, dict[str, RouteDefinition]] = {}
    for route in sorted(app.routes, key=_precedence):
        by_path.setdefault(route.path, {})[route.method] = route
    for path, methods in by_path.items():
        endpoint = Endpoint(
            methods,
            app.services,
            app.lifespans,
            connect=app.connect_publisher,
            max_body_bytes=app.settings.routes_max_body_bytes,
        )
        yield Route(path, endpoint.answer, methods=list(methods))


def _precedence(route: RouteDefinition) -> list[tuple[int, str]]:
    """Return a key that sorts ``/orders/new`` before ``/orders/{id}`` before ``/{rest:path}``."""
    parts = route.path.strip("/").split("/")
    return [(2 if ":path}" in p else 1 if p.startswith("{") else 0, p) for p in parts]


def _document_routes(routes: Iterable[RouteDefinition]) -> Iterable[Route]:
    document = build_openapi(routes)
    page = render_openapi(document)

    async def send_document(_request: Request) -> Response:
        return JSONResponse(document)

    async def send_page(_request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_SECURITY_POLICY})

    yield Route("/openapi.json", send_document, methods=["GET"])
    yield Route("/docs", send_page, methods=["GET"])


def _lifespan_of(app: ConvoticApp):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Starlette's
    @asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        pubsub.use_unless_chosen(app)  # one session for ctx.pubsub and the façade
        try:
            await asyncio.to_thread(app.connect_publisher)
        except BrokerUnavailable as error:
            # Routes that publish answer 503 until it is back; the others work.
            logger.warning("Pub/Sub does not answer yet: %s", error)
        try:
            for route in one_of_each(app.routes):
                await app.lifespans.enter(route)
            yield
        finally:
            await app.lifespans.aclose()
            await app.store.aclose()
            await asyncio.to_thread(app.store.close)

    return lifespan


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(describe_http_error(error), headers=error.headers)


async def _answer_error(request: Request, _error: Exception) -> Response:
    # Only a middleware's: an endpoint answers its own. The server logs it with its traceback.
    logger.error("A request failed outside its route", extra={"path": request.url.path})
    return problem_response(Problem(500))
