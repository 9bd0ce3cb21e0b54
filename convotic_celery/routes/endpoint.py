"""One path's answers: read the body, validate it, make the context, call the handler, answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from convotic_celery.context.delivery import RouteCall
from convotic_celery.context.logger import build_logger
from convotic_celery.routes.answers import encode_answer
from convotic_celery.routes.call import call_async, call_sync
from convotic_celery.routes.problems import (
    describe_error,
    describe_invalid_body,
    problem_response,
)
from convotic_celery.sdk.http import Problem, RouteRequest
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from convotic_celery.context.services import Services
    from convotic_celery.runtime.worker.lifespans import Lifespans
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["Endpoint"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACE_HEADERS = ("traceparent", "tracestate")
_SERVER_ERROR = 500


class Endpoint:
    """Answers one path. Used by one event loop.

    Args:
        routes: By method.
        services: Behind the contexts.
        lifespans: The modules', entered before a route's first request if not at the start.
        connect: Connects for publishing, may block; called in a thread before the first request.
        max_body_bytes: More than that is 413.
    """

    def __init__(
        self,
        routes: Mapping[str, RouteDefinition],
        services: Services,
        lifespans: Lifespans,
        *,
        connect: Callable[[], None],
        max_body_bytes: int,
    ) -> None:
        self._routes = routes
        self._services = services
        self._lifespans = lifespans
        self._connect = connect
        self._connected = False
        self._max_body_bytes = max_body_bytes

    async def answer(self, request: Request) -> Response:
        """Return the answer; whatever goes wrong is a problem, and what is our fault is logged."""
        # HEAD is GET without the body, which the server leaves out.
        route = self._routes["GET" if request.method == "HEAD" else request.method]
        call = _describe_call(route, request)
        try:
            response = await self._call(route, request, call)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            problem = describe_error(error)
            if problem.status >= _SERVER_ERROR and not isinstance(error, Problem):
                build_logger(**call.log_fields()).exception("A route failed")
            response = problem_response(problem)
        response.headers["x-request-id"] = call.message_id
        return response

    async def _call(self, route: RouteDefinition, request: Request, call: RouteCall) -> Response:
        raw = await self._read_body(request)
        given = RouteRequest(
            method=request.method,
            path=request.url.path,
            body=_decode_body(route, request.headers.get("content-type", ""), raw),
            path_params={name: str(value) for name, value in request.path_params.items()},
            query=dict(request.query_params),
            query_lists={
                name: tuple(request.query_params.getlist(name)) for name in request.query_params
            },
            headers={name.lower(): value for name, value in request.headers.items()},
            id=call.message_id,
        )
        await self._connect_once()
        if route.lifespan is not None:
            call = replace(call, resource=await self._lifespans.enter(route))
        if route.is_async:
            answer = await call_async(route, given, self._services.async_context(call))
        else:
            ctx = self._services.sync_context(call)
            answer = await run_in_threadpool(call_sync, route, given, ctx)
        return encode_answer(answer)

    async def _connect_once(self) -> None:
        """Connect in a thread, so that a publish does not block the loop while it does that."""
        if not self._connected:
            # Who publishes while Pub/Sub is away gets that error; others need not care.
            with contextlib.suppress(BrokerUnavailable):
                await asyncio.to_thread(self._connect)
                self._connected = True

    async def _read_body(self, request: Request) -> bytes:
        """Return the body; more than the limit is not read, whatever its length claims to be."""
        too_large = Problem(413, f"A body has at most {self._max_body_bytes:,} bytes.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            raise too_large
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._max_body_bytes:
                raise too_large
            parts.append(part)
        return b"".join(parts)


def _describe_call(route: RouteDefinition, request: Request) -> RouteCall:
    request_id = request.headers.get("x-request-id", "")
    return RouteCall(
        handler=route.name,
        module=route.module,
        message_id=request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
        trace={name: request.headers[name] for name in _TRACE_HEADERS if name in request.headers},
    )


def _decode_body(route: RouteDefinition, content_type: str, raw: bytes) -> Any:
    """Return the body as the handler wants it; raises Problem 400, 415 or 422."""
    if route.body_type is bytes:
        return raw
    if raw and not _is_json(content_type):
        # Also a guard: a page of another site can't send this type without being asked (CORS).
        raise Problem(415, "Send JSON, with the header Content-Type: application/json.")
    if route.body_type is not None:
        try:
            return route.body_adapter.validate_json(raw or b"null")
        except ValidationError as error:
            raise describe_invalid_body(error) from None
        except RecursionError:
            raise Problem(400, "The body is nested too deeply.") from None
    if not raw:
        return None
    try:
        return from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"The body is not JSON: {error}") from None


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
