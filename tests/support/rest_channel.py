"""A channel of gRPC's shape that makes unary calls over REST, so that one test tries both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import grpc
from google.protobuf import json_format

from convotic_emulator.rest.routes import Route, routes_of
from tests.support.waiting import PATIENCE

__all__ = ["RestChannel", "RestError"]


class RestError(grpc.RpcError):
    """An error of a call, read from Google's JSON form."""

    def __init__(self, status: int, content: dict[str, Any]) -> None:
        super().__init__(content["message"])
        assert content["code"] == status
        self._content = content

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return grpc.StatusCode[self._content["status"]]

    def details(self) -> str:
        """Return the text."""
        return str(self._content["message"])


class RestChannel:
    """Unary calls over REST; streams, which REST does not have, over gRPC."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._grpc = grpc.insecure_channel(address)

    def unary_unary(
        self, method: str, *, request_serializer: Any, response_deserializer: Any
    ) -> Callable[..., Any]:
        """Return a function that makes a call."""
        del request_serializer
        answer_type = response_deserializer.__self__

        def make(request: Any, timeout: float = PATIENCE) -> Any:
            content = json_format.MessageToDict(request)
            route, resource = _route(method, content)
            return json_format.ParseDict(
                self._send(route, resource, content, timeout), answer_type()
            )

        return make

    def stream_stream(self, method: str, **serializers: Any) -> Any:
        """Return gRPC's function."""
        return self._grpc.stream_stream(method, **serializers)

    def close(self) -> None:
        """Close gRPC's channel."""
        self._grpc.close()

    def _send(self, route: Route, resource: str, content: Any, timeout: float) -> Any:
        suffix = route.pattern.pattern.rpartition(")")[2].replace("\\", "")
        url = f"/v1/{quote(resource, safe='/:@~+')}{suffix}"
        body = None
        if route.body:
            body = json.dumps(content if route.body == "*" else content.pop(route.body, {}))
        if route.body != "*" and content:
            url += "?" + urlencode(list(_flat(content)))
        connection = http.client.HTTPConnection(self._address, timeout=timeout + 5)
        try:
            headers = {"Content-Type": "application/json", "X-Server-Timeout": str(timeout)}
            connection.request(route.verb, url, body, headers)
            answer = connection.getresponse()
            received = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RestError(answer.status, received["error"])
        return received


def _route(method: str, content: Any) -> tuple[Route, str]:
    """Return the route that a request's resource fits, and the resource, taken out of it."""
    candidates = routes_of(method)
    *path, last = candidates[0].name.split(".")
    owner = content
    for name in path:
        owner = owner.get(name, {})
    resource = str(owner.pop(last, ""))
    for route in candidates:
        suffix = route.pattern.pattern.rpartition(")")[2].replace("\\", "")
        if route.pattern.fullmatch(f"/v1/{resource}{suffix}"):
            return route, resource
    return candidates[0], resource


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            for item in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}", str(item).lower() if isinstance(item, bool) else str(item)
