"""One registered route: :class:`RouteDefinition`."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from convotic_celery.errors import HandlerSignatureError, ModuleError
from convotic_celery.sdk.http import RouteRequest
from convotic_celery.sdk.message import find_schema_problem
from convotic_celery.sdk.middleware import check_middleware
from convotic_celery.sdk.payload_type import PayloadType
from convotic_celery.sdk.signature import HandlerKind, inspect_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_celery.sdk.lifespan import Lifespan
    from convotic_celery.sdk.middleware import RouteMiddleware

__all__ = ["METHODS", "RouteDefinition", "define_route"]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Paths that the application itself serves.
RESERVED_PATHS = ("/docs", "/openapi.json")

_ROUTE = HandlerKind(takes=RouteRequest, first="request", reads="request.body", takes_more=True)
#: ``/orders/{order_id}``; ``{rest:path}`` may only come last.
_PATH = re.compile(r"(/|(/([A-Za-z0-9._~@:+-]+|\{[A-Za-z_]\w*\}))+(/\{[A-Za-z_]\w*:path\})?)")
_ROOT_PATH = re.compile(r"/\{[A-Za-z_]\w*:path\}")
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True)
class RouteDefinition:
    """A route of a module, with everything checked. Made by :func:`define_route`."""

    module: str
    module_version: str
    #: GET, POST, PUT, PATCH or DELETE.
    method: str
    path: str
    #: Of responses without a status of their own.
    status: int
    handler: Callable[..., Any]
    is_async: bool
    #: The type in the annotation ``RouteRequest[...]``; None: any JSON.
    body_type: Any
    #: The handler's return annotation; None: unknown.
    return_type: Any
    #: Where the handler is defined: ``path/to/file.py:12``.
    source: str
    #: Parameters behind ``(request, ctx)``: FastAPI's ``Depends``, ``Query`` and so on.
    extra_parameters: Mapping[str, inspect.Parameter] = field(default_factory=dict)
    #: The module's; ``ctx.resource(...)`` returns what it yields.
    lifespan: Lifespan | None = None
    #: The deployment's middleware, then the module's, in order.
    middleware: tuple[RouteMiddleware, ...] = ()

    def check(self) -> None:
        """Raise ModuleError for middleware that can't wrap this handler."""
        check_middleware(self.middleware, is_async=self.is_async, where=self.source)

    @property
    def name(self) -> str:
        """``POST /orders``."""
        return f"{self.method} {self.path}"

    @property
    def shape(self) -> str:
        """The path without its parameters' names: two routes of the same shape conflict."""
        return _PARAMETER.sub(r"{\2}", self.path)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the path's parameters, in order."""
        return tuple(match[1] for match in _PARAMETER.finditer(self.path))

    @property
    def summary(self) -> str:
        """First line of the handler's docstring, or its name."""
        text = inspect.getdoc(self.handler) or str(getattr(self.handler, "__name__", self.name))
        return text.partition("\n")[0]

    @property
    def description(self) -> str:
        """The rest of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[2].strip()

    @cached_property
    def body_adapter(self) -> PayloadType:
        """Validates the body."""
        return PayloadType(self.body_type)


def define_route(
    handler: Callable[..., Any],
    *,
    module: str,
    module_version: str,
    method: str,
    path: str,
    status: int,
) -> RouteDefinition:
    """Return the checked definition.

    Raises HandlerSignatureError for a function that can't be a route's handler, and ModuleError for
    a method or path that can't be served; both name the rule.
    """
    signature = inspect_handler(handler, _ROUTE)
    where = f"{signature.source}: route {method} {path}"
    method = method.upper()
    if method not in METHODS:
        raise ModuleError(f"{where}: the method must be one of {', '.join(METHODS)}.")
    if not isinstance(status, int) or not 200 <= status < 400:  # noqa: PLR2004 - HTTP's numbers
        raise ModuleError(f"{where}: status must be 200 to 399; for errors raise Problem.")
    _check_path(where, path)
    route = RouteDefinition(
        module=module,
        module_version=module_version,
        method=method,
        path=path,
        status=status,
        handler=handler,
        is_async=signature.is_async,
        body_type=signature.payload_type,
        return_type=signature.return_type,
        source=signature.source,
        extra_parameters=signature.extra,
    )
    if route.body_type is not None:
        _check_body_type(where, route)
    return route


def _check_path(where: str, path: str) -> None:
    if not (_PATH.fullmatch(path) or _ROOT_PATH.fullmatch(path)):
        raise ModuleError(
            f"{where}: a path begins with / and has no empty part; a part is text or a {{name}}, "
            "the last one may be {name:path}."
        )
    names = [match[1] for match in _PARAMETER.finditer(path)]
    if len(set(names)) != len(names):
        raise ModuleError(f"{where}: two parameters have the same name.")
    if path in RESERVED_PATHS or path.startswith("/docs/"):
        raise ModuleError(f"{where}: {path} is reserved by the application.")


def _check_body_type(where: str, route: RouteDefinition) -> None:
    problem = find_schema_problem(lambda: route.body_adapter.adapter)
    if problem:
        raise HandlerSignatureError(
            f"{where}: bodies can't be validated as {route.body_type!r}: {problem}"
        )
