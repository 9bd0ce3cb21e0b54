"""Calls a route's handler inside its middleware's hooks: the first outermost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convotic_celery.routes.answers import to_answer
from convotic_celery.sdk.middleware import settle

if TYPE_CHECKING:
    from convotic_celery.sdk.http import RouteRequest, RouteResponse
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["call_async", "call_sync"]


async def call_async(
    route: RouteDefinition, request: RouteRequest[Any], ctx: object
) -> RouteResponse[Any]:
    """Call an ``async def`` handler and return its answer; what it or a hook raises passes."""
    try:
        for each in route.middleware:
            await settle(each.before(request, ctx))
        answer = to_answer(route, await route.handler(request, ctx))
        for each in reversed(route.middleware):
            await settle(each.after(request, ctx, answer))
    except Exception as error:
        for each in reversed(route.middleware):
            await settle(each.on_error(request, ctx, error))
        raise
    return answer


def call_sync(
    route: RouteDefinition, request: RouteRequest[Any], ctx: object
) -> RouteResponse[Any]:
    """Do what :func:`call_async` does, for a plain handler and plain hooks."""
    try:
        for each in route.middleware:
            each.before(request, ctx)
        answer = to_answer(route, route.handler(request, ctx))
        for each in reversed(route.middleware):
            each.after(request, ctx, answer)
    except Exception as error:
        for each in reversed(route.middleware):
            each.on_error(request, ctx, error)
        raise
    return answer
