"""The OpenAPI document of the routes, https://spec.openapis.org/oas/v3.1.1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, get_args, get_origin

from convotic_celery.documents.schemas import JsonSchema, SchemaKey, build_schemas
from convotic_celery.sdk.http import RouteResponse

if TYPE_CHECKING:
    from convotic_celery.sdk.route import RouteDefinition

__all__ = ["build_openapi"]

#: What any route may answer; those with a body have more, see :func:`_problems_of`.
_PROBLEM_STATUSES = (400, 404, 405, 413, 415, 422, 500, 503)
_PROBLEM_SCHEMA: JsonSchema = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "With status 422: the values at fault.",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def build_openapi(
    routes: Iterable[RouteDefinition], *, title: str = "Convotic routes", version: str = "1"
) -> dict[str, Any]:
    """Return the document; its order is that of the routes."""
    routes = tuple(routes)
    schemas, definitions = build_schemas(_types_of(routes))
    definitions.setdefault("Problem", _PROBLEM_SCHEMA)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _describe(route, schemas)
        paths.setdefault(route.path.replace(":path}", "}"), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.1",
        "info": {"title": title, "version": version},
        "tags": [{"name": name} for name in dict.fromkeys(route.module for route in routes)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": {str(status): _problem(status) for status in _PROBLEM_STATUSES},
        },
    }


def _types_of(routes: Iterable[RouteDefinition]) -> Mapping[SchemaKey, Any]:
    types: dict[SchemaKey, Any] = {}
    for route in routes:
        types[(route.name, "validation")] = None if route.body_type is bytes else route.body_type
        types[(route.name, "serialization")] = _answered_type(route.return_type)
    return types


def _answered_type(annotation: Any) -> Any:
    """Return the type of the body that is answered, None where the annotation does not say it."""
    if get_origin(annotation) is RouteResponse:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation) or annotation
    # A mapping is {"status": ..., "body": ...}, of which the annotation says nothing useful.
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return None if is_mapping or origin in (RouteResponse, Any, object) else annotation


def _describe(route: RouteDefinition, schemas: Mapping[SchemaKey, JsonSchema]) -> dict[str, Any]:
    name = getattr(route.handler, "__name__", type(route.handler).__name__)
    operation: dict[str, Any] = {
        "operationId": f"{route.module}.{name}.{route.method.lower()}",
        "tags": [route.module],
        "summary": route.summary,
    }
    if route.description:
        operation["description"] = route.description
    if route.parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.parameters
        ]
    if route.method != "GET" or route.body_type is not None:
        operation["requestBody"] = _body(route, schemas[(route.name, "validation")])
    operation["responses"] = _answers(route, schemas[(route.name, "serialization")])
    return operation


def _body(route: RouteDefinition, schema: JsonSchema) -> dict[str, Any]:
    if route.body_type is bytes:
        return {"content": {"application/octet-stream": {}}}
    required = {"required": True} if route.body_type is not None else {}
    return {**required, "content": {"application/json": {"schema": schema}}}


def _answers(route: RouteDefinition, schema: JsonSchema) -> dict[str, Any]:
    # Which status a handler's mapping or RouteResponse has, only the handler knows.
    is_known = route.return_type is not None and schema
    status = str(route.status) if route.status != HTTPStatus.OK or is_known else "2XX"
    answer: dict[str, Any] = {"description": "What the handler answers."}
    if schema:
        answer["content"] = {"application/json": {"schema": schema}}
    problems = _problems_of(route)
    return {status: answer} | {
        str(code): {"$ref": f"#/components/responses/{code}"} for code in problems
    }


def _problems_of(route: RouteDefinition) -> list[int]:
    has_body = route.method != "GET" or route.body_type is not None
    found = [400, 413, 415] if has_body else []
    found += [422] if route.body_type not in (None, bytes) else []
    return [*found, 500, 503]


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
