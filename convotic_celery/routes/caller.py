"""Calls a route's handler with its context, inside its middleware's hooks: the first outermost."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from convotic_celery.routes.answers import to_answer
from convotic_celery.runtime.execution.exits import STOPS, as_exception
from convotic_celery.sdk.middleware import report_error_async, report_error_sync, settle
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.app import ConvoticApp
    from convotic_celery.context.delivery import RouteCall
    from convotic_celery.sdk.http import RouteRequest, RouteResponse
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["Caller"]


class Caller:
    """Calls the handlers of one application. Used by one event loop."""

    def __init__(self, app: ConvoticApp) -> None:
        self._app = app
        self._connected = False

    async def call(
        self,
        route: RouteDefinition,
        request: RouteRequest[Any],
        call: RouteCall,
        dependencies: Mapping[str, Any],
    ) -> RouteResponse[Any]:
        """Return the handler's answer, with a status; what it or a hook raises passes."""
        await self._connect_once()
        if route.lifespan is not None:
            call = replace(call, resource=await self._app.lifespans.enter(route))
        services = self._app.services
        if route.is_async:
            return await _call_async(route, request, services.async_context(call), dependencies)
        ctx = services.sync_context(call)
        return await run_in_threadpool(_call_sync, route, request, ctx, dependencies)

    async def _connect_once(self) -> None:
        """Connect in a thread, so that a publish does not block the loop while it does that."""
        if not self._connected:
            # Only a publish fails while Pub/Sub is unavailable.
            with contextlib.suppress(BrokerUnavailable):
                await asyncio.to_thread(self._app.connect_publisher)
                self._connected = True


async def _call_async(
    route: RouteDefinition, request: RouteRequest[Any], ctx: object, extra: Mapping[str, Any]
) -> RouteResponse[Any]:
    try:
        for each in route.middleware:
            await settle(each.before(request, ctx))
        answer = to_answer(route, await route.handler(request, ctx, **extra))
        for each in reversed(route.middleware):
            await settle(each.after(request, ctx, answer))
    except BaseException as raised:
        if issubclass(type(raised), STOPS):  # its client has left, or the server ends
            raise
        error = await report_error_async(route.middleware, request, ctx, as_exception(raised))
        if error is raised:
            raise
        raise error  # noqa: B904 - it has its cause
    return answer


def _call_sync(
    route: RouteDefinition, request: RouteRequest[Any], ctx: object, extra: Mapping[str, Any]
) -> RouteResponse[Any]:
    """Do what :func:`_call_async` does, for a plain handler and plain hooks."""
    try:
        for each in route.middleware:
            each.before(request, ctx)
        answer = to_answer(route, route.handler(request, ctx, **extra))
        for each in reversed(route.middleware):
            each.after(request, ctx, answer)
    except BaseException as raised:
        error = report_error_sync(route.middleware, request, ctx, as_exception(raised))
        if error is raised:
            raise
        raise error  # noqa: B904 - as above
    return answer
