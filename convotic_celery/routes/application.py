"""``create_asgi_app``: the FastAPI application that answers the routes of all modules."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match, Mount, Route
from starlette.staticfiles import StaticFiles

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.routes.api_route import make_routes
from convotic_celery.routes.caller import Caller
from convotic_celery.routes.problems import describe_error, problem_response
from convotic_celery.runtime.execution.lifespans import one_of_each
from convotic_celery.sdk.http import Problem
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.requests import Request

    from convotic_celery.sdk.route import RouteDefinition
    from convotic_celery.settings import Settings

__all__ = ["build_openapi", "create_asgi_app"]

logger = logging.getLogger(__name__)

_TITLE = "Convotic routes"
_ASSETS = "/docs/assets"
#: Swagger UI is dark where its page says so, and FastAPI's page never does.
_FOLLOW_SCHEME = b"""<meta name="color-scheme" content="light dark">
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
</script>
"""
_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "With status 422: the values at fault.",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def create_asgi_app(
    settings: Settings | None = None,
    *,
    app: ConvoticApp | None = None,
    middleware: Sequence[Middleware] = (),
    documents: bool = True,
) -> FastAPI:
    """Load the modules and return the application that answers their routes.

    Nothing is started and no connection is made; the first publish connects, and so does the start
    of a server that knows ASGI's lifespan. What FastAPI can do is the caller's to add.

    Args:
        settings: None reads them from the environment.
        app: An app made already, instead of settings.
        middleware: Starlette's, e.g. for authentication: there is none built in.
        documents: Serve ``/openapi.json`` and ``/docs``, and lead from ``/`` there.

    Raises:
        ConfigurationError: A setting is wrong.
        ModuleError: A module can't be loaded.
    """
    app = app or create_app(settings, set_as_current=False)
    api = _RoutesApi(
        app.routes,
        Caller(app),
        max_body_bytes=app.settings.routes_max_body_bytes,
        openapi_url="/openapi.json" if documents else None,
        middleware=list(middleware),
        lifespan=_lifespan_of(app),
        exception_handlers={
            HTTPException: _answer_http_error,
            RequestValidationError: _answer_known_error,
            Exception: _answer_error,
        },
    )
    if documents:
        _serve_page(api)
    return api


def build_openapi(routes: Iterable[RouteDefinition]) -> dict[str, Any]:
    """Return the OpenAPI document of the routes; its order is theirs."""
    return _RoutesApi(routes, None).openapi()


class _RoutesApi(FastAPI):
    """FastAPI with our routes, and a document that has our problem details."""

    def __init__(
        self,
        routes: Iterable[RouteDefinition],
        caller: Caller | None,
        *,
        max_body_bytes: int = 0,
        **options: Any,
    ) -> None:
        routes = tuple(routes)
        tags = [{"name": name} for name in dict.fromkeys(route.module for route in routes)]
        super().__init__(
            title=_TITLE,
            version="1",
            openapi_tags=tags,
            docs_url=None,  # FastAPI's page loads its scripts from elsewhere
            redoc_url=None,
            redirect_slashes=False,
            **options,
        )
        for route in sorted(routes, key=_precedence):
            self.router.routes.extend(make_routes(route, caller, max_body_bytes=max_body_bytes))

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", _PROBLEM_SCHEMA)
        return document


def _precedence(route: RouteDefinition) -> list[tuple[int, str]]:
    """Return a key that sorts ``/orders/new`` before ``/orders/{id}`` before ``/{rest:path}``."""
    parts = route.path.strip("/").split("/")
    return [(2 if ":path}" in p else 1 if p.startswith("{") else 0, p) for p in parts]


def _serve_page(api: FastAPI) -> None:
    """Serve Swagger UI at ``/docs`` from the files of a package, and nothing from elsewhere."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=_TITLE,
        swagger_js_url=f".{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f".{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f".{_ASSETS}/favicon.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "requestSnippetsEnabled": True},
    )
    content = bytes(page.body).replace(b"</head>", _FOLLOW_SCHEME + b"</head>", 1)
    policy = _content_security_policy(content)

    async def send_page(_request: Request) -> Response:
        return HTMLResponse(content, headers={"content-security-policy": policy})

    async def lead_to_page(_request: Request) -> Response:
        return RedirectResponse("docs")

    assets = StaticFiles(packages=[("fastapi_offline", "static")])
    # Around the modules' routes: theirs may be /{rest:path}, or / itself.
    api.router.routes[:0] = [Route("/docs", send_page), Mount(_ASSETS, assets)]
    api.router.routes.append(Route("/", lead_to_page))


def _content_security_policy(page: bytes) -> str:
    """Return a policy that allows this server's files and the page's own scripts, nothing else."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {allowed}; connect-src 'self'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def _lifespan_of(app: ConvoticApp):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Starlette's
    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
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


async def _answer_known_error(_request: Request, error: Exception) -> Response:
    return problem_response(describe_error(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # noqa: PLR2004 - FastAPI knows the methods of one route only
        matching = (r for r in request.app.routes if r.matches(request.scope)[0] != Match.NONE)
        headers["allow"] = ", ".join(sorted({m for r in matching for m in r.methods}))
    return problem_response(describe_error(error), headers=headers)


async def _answer_error(request: Request, _error: Exception) -> Response:
    # Only a middleware's: a route answers its own. The server logs it with its traceback.
    logger.error("A request failed outside its route", extra={"path": request.url.path})
    return problem_response(Problem(500))
