"""Errors as problem details, https://www.rfc-editor.org/rfc/rfc9457: which error is which status.

What the caller is told is the caller's own doing, or nothing: the texts of unexpected errors stay
in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.responses import Response

from convotic_celery.errors import (
    MessageTooLarge,
    PublishManyFailed,
    PublishNotConfirmed,
    StoreUnavailable,
)
from convotic_celery.sdk.http import Problem
from convotic_pubsub.errors import BrokerUnavailable

if TYPE_CHECKING:
    from pydantic import ValidationError
    from starlette.exceptions import HTTPException

__all__ = [
    "describe_error",
    "describe_http_error",
    "describe_invalid_body",
    "problem_response",
]

MEDIA_TYPE = "application/problem+json"

#: What the caller may well try again, and when.
_PASSING = (BrokerUnavailable, PublishManyFailed, PublishNotConfirmed, StoreUnavailable)
_RETRY_AFTER_SECONDS = 5
_MAX_PROBLEMS = 20


def problem_response(problem: Problem, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that tells of the problem."""
    extra = dict(headers or {})
    if problem.status == 503:  # noqa: PLR2004 - Service Unavailable
        extra.setdefault("retry-after", str(_RETRY_AFTER_SECONDS))
    return Response(
        to_json(problem.members()),
        status_code=problem.status,
        headers=extra,
        media_type=MEDIA_TYPE,
    )


def describe_error(error: Exception) -> Problem:
    """Return the problem that an error of a handler is; 500 for all that is not expected."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, _PASSING):
        return Problem(503, "A service that this needs does not answer. Try again.")
    if isinstance(error, MessageTooLarge):
        return Problem(413, "The message would be too large for Pub/Sub.")
    return Problem(500)


def describe_http_error(error: HTTPException) -> Problem:
    """Return the problem that one of Starlette's errors is: 404 and 405 for unknown routes."""
    status = error.status_code
    problem = Problem(status)
    detail = "" if error.detail == problem.title else str(error.detail)
    return Problem(status, detail)


def describe_invalid_body(error: ValidationError) -> Problem:
    """Return 400 for what is no JSON, else 422 with a JSON pointer to each value at fault.

    Values themselves are not repeated.
    """
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Problem(400, f"The body is not JSON: {_reason(problems[0]['msg'])}")
    return Problem(
        422,
        f"The body is no {error.title}.",
        errors=[
            {"pointer": _pointer(problem["loc"]), "detail": problem["msg"]}
            for problem in problems[:_MAX_PROBLEMS]
        ],
    )


def _reason(text: str) -> str:
    return text.removeprefix("Invalid JSON: ")


def _pointer(location: tuple[Any, ...]) -> str:
    """Return where a value is, as https://www.rfc-editor.org/rfc/rfc6901 writes it."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "#" + "".join(f"/{part}" for part in parts)
