"""One of our routes as one of FastAPI's: parameters, documents, errors, and how it is called."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import Path, Request, Response
from fastapi.exceptions import FastAPIError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from convotic_celery.context.delivery import RouteCall
from convotic_celery.context.logger import build_logger
from convotic_celery.context.publishing import TRACE_ATTRIBUTES
from convotic_celery.errors import ModuleError
from convotic_celery.routes.answers import encode_answer
from convotic_celery.routes.body import (
    RouteHttpRequest,
    body_parameter,
    decode_body,
    documentable,
    takes_body,
)
from convotic_celery.routes.problems import describe_error, problem_response
from convotic_celery.runtime.execution.exits import as_exception
from convotic_celery.sdk.http import RouteRequest, RouteResponse

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from convotic_celery.routes.caller import Caller
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["make_routes"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
#: Of an attribute's value: a longer header can't travel with what is published.
_MAX_TRACE = 1024
#: Of any route, in its document; the schema is application.py's.
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    for status in (400, 408, 413, 415, 422, 500, 503)
}
#: The names of our parameters, which no handler's parameter has.
_REQUEST, _BODY = "convotic_request", "convotic_body"


def make_routes(
    route: RouteDefinition, caller: Caller | None, *, max_body_bytes: int
) -> Iterator[BaseRoute]:
    """Yield FastAPI's routes for one of ours; without a caller for the document alone.

    Raises:
        ModuleError: FastAPI can't serve the handler's parameters.
    """
    endpoint = _Endpoint(route, caller, max_body_bytes)
    name = getattr(route.handler, "__name__", type(route.handler).__name__)
    answered = documentable(_answered_type(route.return_type), "serialization")
    # Which status a handler's mapping or RouteResponse has, only the handler knows.
    status: Any = route.status if answered or route.status != HTTPStatus.OK else "2XX"
    try:
        made = _ConvoticRoute(
            route.path,
            endpoint,
            methods=[route.method],
            name=name,
            operation_id=f"{route.module}.{name}.{route.method.lower()}",
            tags=[route.module],
            summary=route.summary,
            description=route.description,
            status_code=status,
            response_description="What the handler answers.",
            response_model=answered,
            responses=_PROBLEMS,
        )
    except (AssertionError, FastAPIError) as error:
        raise ModuleError(f"{route.source}: {route.name} can't be served: {error}") from error
    if len(made.dependant.body_params) > takes_body(route):
        raise ModuleError(
            f"{route.source}: {route.name} has a parameter that FastAPI would read from the body. "
            "Annotate it with Query(), Header() or Depends(); the body is request.body."
        )
    yield made
    if route.method == "GET":  # the server leaves the body of the answer out
        yield _ConvoticRoute(route.path, endpoint, methods=["HEAD"], include_in_schema=False)


class _ConvoticRoute(APIRoute):
    """Answers errors with problem details, and each request with its id."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        endpoint = self.endpoint
        assert isinstance(endpoint, _Endpoint)

        async def handle(plain: Request) -> Response:
            request = RouteHttpRequest(plain.scope, plain.receive)
            request.call = call = _describe_call(endpoint.route, request)
            request.max_body_bytes = endpoint.max_body_bytes
            try:
                response = await answer(request)
            except ClientDisconnect:
                return Response(status_code=400)  # it is never read
            # A handler may raise anything; what a library exits with would end the server.
            except (Exception, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001 - as above
                error = as_exception(raised)
                problem = describe_error(error)
                if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and problem is not error:
                    build_logger(**call.log_fields()).exception("A route failed")
                response = problem_response(problem, headers=getattr(error, "headers", None))
            response.headers["x-request-id"] = call.message_id
            return response

        return handle


class _Endpoint:
    """What FastAPI calls: its signature says what we and the handler want of the request."""

    def __init__(self, route: RouteDefinition, caller: Caller | None, max_body_bytes: int) -> None:
        self.route = route
        self.max_body_bytes = max_body_bytes
        self._caller = caller
        self.__signature__ = inspect.Signature(list(self._parameters()))
        self.__doc__ = None  # FastAPI would describe a route without a description by this class's

    def _parameters(self) -> Iterator[inspect.Parameter]:
        keyword = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(_REQUEST, keyword, annotation=Request)
        if takes_body(self.route):
            kind, default = body_parameter(self.route)
            yield inspect.Parameter(_BODY, keyword, annotation=kind, default=default)
        for name in self.route.parameters:
            if name not in self.route.extra_parameters:
                yield inspect.Parameter(name, keyword, annotation=Annotated[str, Path()])
        yield from self.route.extra_parameters.values()

    async def __call__(self, **given: Any) -> Response:
        """Return the handler's answer."""
        request: RouteHttpRequest = given[_REQUEST]
        query = request.query_params
        described = RouteRequest(
            method=request.method,
            path=request.url.path,
            body=await decode_body(self.route, given.get(_BODY) or b"", is_json=request.is_json),
            path_params={name: str(value) for name, value in request.path_params.items()},
            query=dict(query),
            query_lists={name: tuple(query.getlist(name)) for name in query},
            headers=dict(request.headers),
            id=request.call.message_id,
        )
        extra = {name: given[name] for name in self.route.extra_parameters}
        assert self._caller is not None, "made for the document alone"
        return encode_answer(await self._caller.call(self.route, described, request.call, extra))


def _answered_type(annotation: Any) -> Any:
    """Return the type of the body that is answered, None where the annotation does not say it."""
    if get_origin(annotation) is RouteResponse:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation) or annotation
    # A mapping is {"status": ..., "body": ...}, of which the annotation says nothing useful.
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return None if is_mapping or origin in (RouteResponse, Any, object) else annotation


def _describe_call(route: RouteDefinition, request: Request) -> RouteCall:
    request_id = request.headers.get("x-request-id", "")
    headers = {name: request.headers.get(name, "") for name in TRACE_ATTRIBUTES}
    return RouteCall(
        handler=route.name,
        module=route.module,
        message_id=request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
        trace={n: value for n, value in headers.items() if 0 < len(value.encode()) <= _MAX_TRACE},
    )
