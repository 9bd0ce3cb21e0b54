"""JSON and URLs to requests of methods; answers and errors to JSON.

https://google.aip.dev/127 (HTTP and gRPC transcoding) and https://google.aip.dev/193 (errors).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from google.protobuf import json_format

from convotic_emulator.services.rpc import CallError, Status
from convotic_protos import pool, rpc

if TYPE_CHECKING:
    from convotic_emulator.rest.routes import Match

__all__ = ["error_of", "json_of", "request_of"]

#: What any API of Google's takes in the URL, and is no field of a request.
_SYSTEM = frozenset({"access_token", "alt", "fields", "key", "prettyPrint", "quotaUser"})
_HTTP = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.INVALID_ARGUMENT: 400,
    Status.FAILED_PRECONDITION: 400,
    Status.OUT_OF_RANGE: 400,
    Status.UNAUTHENTICATED: 401,
    Status.PERMISSION_DENIED: 403,
    Status.NOT_FOUND: 404,
    Status.ABORTED: 409,
    Status.ALREADY_EXISTS: 409,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNIMPLEMENTED: 501,
    Status.UNAVAILABLE: 503,
    Status.DEADLINE_EXCEEDED: 504,
}


def request_of(match: Match, query: str, body: bytes) -> Any:
    """Return the request of a method.

    Raises:
        CallError: the body is no JSON, or a field is unknown or has no such value.
    """
    route = match.route
    fields: dict[str, Any] = {}
    descriptor = route.request.DESCRIPTOR
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _SYSTEM and not name.startswith("$"):
            _put(fields, name.split("."), text, descriptor)
    if body.strip():
        content = _parsed(body)
        if route.body == "*":
            fields |= content
        elif route.body:
            fields[route.body] = content
    for mask in ("updateMask", "update_mask"):
        if isinstance(fields.get(mask), str):
            fields[mask] = re.sub("_([a-z])", lambda m: m[1].upper(), fields[mask])
    request = route.request()
    try:
        json_format.ParseDict(fields, request)
    except json_format.ParseError as error:
        raise _invalid(str(error)) from error
    *path, last = route.name.split(".")
    owner = request
    for name in path:
        owner = getattr(owner, name)
    setattr(owner, last, match.resource)
    return request


def json_of(answer: Any) -> bytes:
    """Return an answer's JSON, as Google's APIs write it."""
    return _dumped(json_format.MessageToDict(answer))


def error_of(error: CallError) -> tuple[int, bytes]:
    """Return an error's HTTP status and JSON."""
    code = _HTTP.get(error.status, 500)
    content: dict[str, Any] = {
        "code": code,
        "message": error.message,
        "status": error.status.name,
    }
    for name, value in error.trailers:
        if name == "grpc-status-details-bin":
            status = json_format.MessageToDict(rpc.Status.FromString(value), descriptor_pool=pool)
            content["details"] = status["details"]
    return code, _dumped({"error": content})


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(str(error)) from error
    if not isinstance(content, dict):
        raise _invalid("the body must be an object.")
    return content


def _put(fields: dict[str, Any], path: list[str], text: str, descriptor: Any) -> None:
    """Set a field by its path in the URL; repeated ones gather values."""
    name, *rest = path
    field = None
    if descriptor is not None:
        field = descriptor.fields_by_camelcase_name.get(name) or descriptor.fields_by_name.get(name)
    if rest:
        inner = fields.setdefault(name, {})
        if not isinstance(inner, dict):
            raise _invalid(f'Unknown name "{".".join(path)}".')
        _put(inner, rest, text, field.message_type if field is not None else None)
    elif field is not None and field.is_repeated:
        fields.setdefault(name, []).append(text)
    elif field is not None and field.type == field.TYPE_BOOL and text in ("true", "false"):
        fields[name] = text == "true"
    else:
        fields[name] = text


def _invalid(reason: str) -> CallError:
    return CallError(Status.INVALID_ARGUMENT, f"Invalid JSON payload received. {reason}")


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
