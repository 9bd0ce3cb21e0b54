"""What a route's handler returns, as an answer with status, and as what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from convotic_celery.context.publishing import encode_json
from convotic_celery.sdk.http import RouteResponse

if TYPE_CHECKING:
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["encode_answer", "to_answer"]

#: Answers that never have a body.
_WITHOUT_BODY = frozenset({204, 205, 304})
_NO_CONTENT = 204


def to_answer(route: RouteDefinition, returned: object) -> RouteResponse[Any]:
    """Return what a handler returned as an answer that has a status.

    Raises:
        TypeError: A mapping is not ``{"status": ..., "body": ..., "headers": ...}``.
    """
    if returned is None:
        return RouteResponse(None, _NO_CONTENT)
    if isinstance(returned, Mapping):
        return _from_mapping(route, returned)
    answer = returned if isinstance(returned, RouteResponse) else RouteResponse(returned)
    return replace(answer, status=route.status) if answer.status is None else answer


def _from_mapping(route: RouteDefinition, answer: Mapping[str, Any]) -> RouteResponse[Any]:
    if "status" not in answer or not set(answer) <= {"status", "body", "headers"}:
        raise TypeError(
            f"{route.source}: {route.name} returned a mapping with {', '.join(map(str, answer))}. "
            'A mapping is {"status": 200, "body": ..., "headers": {...}}, with status at least; '
            "put what you have into its body."
        )
    return RouteResponse(answer.get("body"), answer["status"], answer.get("headers") or {})


def encode_answer(answer: RouteResponse[Any]) -> Response:
    """Return the answer to send.

    Raises:
        TypeError: Its status is none.
        PublishRefused: The body has no JSON form.
    """
    status = answer.status
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status < 600:  # noqa: PLR2004 - HTTP's numbers
        raise TypeError(f"the status of an answer is a number from 200 to 599, not {status!r}")
    headers = {str(name): str(value) for name, value in answer.headers.items()}
    if answer.body is None or status in _WITHOUT_BODY:
        return Response(status_code=status, headers=headers)
    if isinstance(answer.body, bytes):
        return Response(answer.body, status_code=status, headers=headers)
    return Response(
        encode_json(answer.body),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
