"""The body of a request: read within bounds, described to FastAPI, validated as the handler's type.

FastAPI only passes the body on: we read its text as the wanted type in one step. FastAPI would make
Python objects of it first, which loses what JSON's own rules say to strict models.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Body, Request
from pydantic import PlainValidator, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from convotic_celery.routes.problems import describe_invalid_body
from convotic_celery.sdk.http import Problem
from convotic_celery.sdk.infinite import find_infinite

if TYPE_CHECKING:
    from convotic_celery.context.delivery import RouteCall
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["RouteHttpRequest", "body_parameter", "decode_body", "documentable", "takes_body"]

#: A body may take so long, and longer as more of it arrives; after that the client gets 408.
_GRACE_SECONDS = 15.0
_MIN_BYTES_PER_SECOND = 50_000
#: To validate more than that takes so long that the event loop must not wait for it.
_LARGE_BODY_BYTES = 100_000


class RouteHttpRequest(Request):
    """A request whose body is bounded in size and time, and is not parsed by FastAPI."""

    call: RouteCall
    max_body_bytes: int
    is_json = False

    async def body(self) -> bytes:
        """Read the body; more than the limit is not read, whatever its length claims to be."""
        if hasattr(self, "_body"):
            return self._body
        too_large = HTTPException(413, f"A body has at most {self.max_body_bytes:,} bytes.")
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body_bytes:
            raise too_large
        parts, size = [], 0
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_GRACE_SECONDS) as patience:
                async for part in self.stream():
                    size += len(part)
                    if size > self.max_body_bytes:
                        raise too_large
                    parts.append(part)
                    granted = _GRACE_SECONDS + size / _MIN_BYTES_PER_SECOND
                    patience.reschedule(started + granted)
        except TimeoutError:
            raise HTTPException(
                408, "The body arrives too slowly.", headers={"connection": "close"}
            ) from None
        self._body = b"".join(parts)
        return self._body

    async def json(self) -> Any:
        """Note that the content type is JSON: FastAPI calls this then, and only then."""
        self.is_json = True
        return await self.body()


def takes_body(route: RouteDefinition) -> bool:
    """Tell whether the route reads a body: GET only where the handler's annotation names one."""
    return route.method != "GET" or route.body_type is not None


def body_parameter(route: RouteDefinition) -> tuple[Any, Any]:
    """Return annotation and default of the body, which FastAPI describes and passes on as it came.

    The default None makes it optional: for any JSON, for bytes, and for a type that takes null.
    """
    if route.body_type is bytes:
        return Annotated[Any, Body(media_type="application/octet-stream")], None
    kind = documentable(route.body_type, "validation") or Any
    is_optional = route.body_type is None or _takes_null(route)
    as_it_came = PlainValidator(lambda raw: raw, json_schema_input_type=kind)
    return Annotated[kind, as_it_came, Body()], None if is_optional else inspect.Parameter.empty


def _takes_null(route: RouteDefinition) -> bool:
    try:
        route.body_adapter.validate_json(b"null")
    except ValidationError:
        return False
    return True


def documentable(kind: Any, mode: Literal["validation", "serialization"]) -> Any:
    """Return the type, or None where it has no JSON Schema: the others keep their document."""
    if kind is None:
        return None
    try:
        TypeAdapter(kind).json_schema(mode=mode)
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return None
    return kind


async def decode_body(route: RouteDefinition, raw: bytes, *, is_json: bool) -> Any:
    """Return the body as the handler wants it; raises Problem 400, 415 or 422."""
    if route.body_type is bytes:
        return raw
    if raw and not is_json:
        # Also a guard: a page of another site can't send this type without being asked (CORS).
        raise Problem(415, "Send JSON, with the header Content-Type: application/json.")
    if len(raw) > _LARGE_BODY_BYTES:
        return await run_in_threadpool(_parse, route, raw)
    return _parse(route, raw)


def _parse(route: RouteDefinition, raw: bytes) -> Any:
    if (number := find_infinite(raw)) is not None:
        raise Problem(400, f"The body has a number that is out of range: {number}.")
    try:
        if route.body_type is not None:
            return route.body_adapter.validate_json(raw or b"null")
        return from_json(raw, allow_inf_nan=False) if raw else None
    except ValidationError as error:
        raise describe_invalid_body(error) from None
    except RecursionError:
        raise Problem(400, "The body is nested too deeply.") from None
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}") from None
