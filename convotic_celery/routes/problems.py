"""Errors as problem details, https://www.rfc-editor.org/rfc/rfc9457: which error is which status.

An answer explains the caller's own mistakes only: the texts of unexpected errors stay in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
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

__all__ = ["describe_error", "describe_invalid_body", "problem_response"]

MEDIA_TYPE = "application/problem+json"

#: What the caller may well try again, and when.
_PASSING = (BrokerUnavailable, PublishManyFailed, PublishNotConfirmed, StoreUnavailable)
_RETRY_AFTER_SECONDS = 5
_MAX_PROBLEMS = 20
#: Reading one of more faults means making Python objects of all, which takes seconds.
_MAX_COUNTED = 10_000


def problem_response(problem: Problem, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that describes the problem."""
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
    """Return the problem that an error of a handler or of FastAPI is; 500 for anything else."""
    match error:
        case Problem():
            return error
        case HTTPException(status_code=status):
            return Problem(status, "" if error.detail == _phrase(status) else str(error.detail))
        case RequestValidationError():
            return _describe_invalid_request(error)
        case MessageTooLarge():
            return Problem(413, "The message would be too large for Pub/Sub.")
    if isinstance(error, _PASSING):
        return Problem(503, "A service that this needs does not answer. Try again.")
    return Problem(500)


def describe_invalid_body(error: ValidationError) -> Problem:
    """Return 400 for what is no JSON, else 422 with a JSON pointer to each value at fault.

    Values themselves are not repeated.
    """
    count = error.error_count()
    if count > _MAX_COUNTED:
        return Problem(422, f"The body is not a valid {error.title}: {count:,} values are wrong.")
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        reason = problems[0]["msg"].removeprefix("Invalid JSON: ")
        return Problem(400, f"The body is not JSON: {reason}")
    return Problem(
        422,
        f"The body is no {error.title}.",
        errors=[
            {"pointer": _pointer(problem["loc"]), "detail": problem["msg"]}
            for problem in problems[:_MAX_PROBLEMS]
        ],
    )


def _describe_invalid_request(error: RequestValidationError) -> Problem:
    """Return 422 for parameters that don't fit, and for a body that is missing."""
    found = []
    for problem in error.errors()[:_MAX_PROBLEMS]:
        place, *rest = problem["loc"]
        where = {"pointer": _pointer(tuple(rest))} if place == "body" else {"in": place}
        if rest and place != "body":
            where["parameter"] = ".".join(map(str, rest))
        found.append({**where, "detail": problem["msg"]})
    return Problem(422, "The request does not fit.", errors=found)


def _pointer(location: tuple[Any, ...]) -> str:
    """Return where a value is, as https://www.rfc-editor.org/rfc/rfc6901 writes it."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "#" + "".join(f"/{part}" for part in parts)


def _phrase(status: int) -> str:
    """Return what an HTTPException without a detail has for one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
