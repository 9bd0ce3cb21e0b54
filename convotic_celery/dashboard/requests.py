"""Reading what the page sends: query parameters and JSON bodies, with errors for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["answer", "read_body", "read_limit"]

ModelT = TypeVar("ModelT", bound=BaseModel)

#: A message of Pub/Sub's limit, as JSON text within JSON.
_MAX_BODY_BYTES = 25_000_000


def answer(content: Any, status: int = 200) -> Response:
    """Return JSON that is not cached."""
    return Response(
        to_json(content),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Return the body as the model; raises HTTPException 400 or 413."""
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"A request may have at most {_MAX_BODY_BYTES:,} bytes.")
    try:
        return model.model_validate_json(bytes(raw) or b"{}")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        text = f"{where}: {problem['msg']}" if where else str(problem["msg"])
        raise HTTPException(400, text) from None


def read_limit(request: Request, default: int = 50) -> int:
    """Return the parameter ``limit``, 1 to 500; raises HTTPException 400."""
    raw = request.query_params.get("limit", str(default))
    if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw[:9]) <= 500:  # noqa: PLR2004
        raise HTTPException(400, "limit must be a number from 1 to 500.")
    return int(raw)
