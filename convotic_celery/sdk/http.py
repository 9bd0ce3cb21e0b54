"""A route's request and response: :class:`RouteRequest`, ``RouteResponse``, ``Problem``.

Plain values: nothing here knows of a web server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic

from typing_extensions import TypeVar

from convotic_celery.errors import ConvoticError

__all__ = ["Problem", "RouteRequest", "RouteResponse"]

BodyT_co = TypeVar("BodyT_co", covariant=True, default=Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest(Generic[BodyT_co]):
    """One request, as its route's handler sees it.

    With the annotation ``RouteRequest[Order]`` the body is validated as ``Order`` before the
    handler is called; a bare ``RouteRequest`` has the parsed JSON, ``RouteRequest[bytes]`` the raw
    body.
    """

    method: str
    #: Without the query: ``/orders/17``.
    path: str
    #: None if there is no body. Left out of ``repr``, so that logs don't show it.
    body: BodyT_co = field(repr=False)
    #: The values of ``{name}`` in the route's path, unquoted.
    path_params: Mapping[str, str] = field(default_factory=dict)
    #: The last value of each parameter; ``query_lists`` has all.
    query: Mapping[str, str] = field(default_factory=dict)
    query_lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Names in lower case; credentials among them, so they are left out of ``repr``.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The caller's ``X-Request-Id``, or a new one; it is in the response and in every log line.
    id: str = ""


@dataclass(frozen=True, slots=True)
class RouteResponse(Generic[BodyT_co]):
    """A response: ``RouteResponse(OrderAccepted(...), status=202)``.

    The default status is the route's. The body is anything with a JSON form, None for no body, or
    bytes, which are sent unchanged (give a ``content-type``).
    """

    body: BodyT_co = None  # type: ignore[assignment]  # bare RouteResponse() has no body
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(ConvoticError):
    """Raised by a route's handler: the response is problem details, RFC 9457.

    ``raise Problem(409, "The order is already paid.", order_id="17")`` responds::

        {"type": "about:blank", "title": "Conflict", "status": 409,
         "detail": "The order is already paid.", "order_id": "17"}

    Args:
        status: 400 to 599.
        detail: Shown to the caller, so it must not contain secrets.
        title: Default: the status's phrase.
        type: URI of this kind of problem.
        extensions: Further members; any JSON.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        title: str = "",
        type: str = "about:blank",  # noqa: A002 - RFC 9457's name
        **extensions: Any,
    ) -> None:
        if not HTTPStatus.BAD_REQUEST <= status < 600:  # noqa: PLR2004 - there is no 600
            raise ValueError(f"a problem's status is 400 to 599, not {status}")
        super().__init__(status, detail, title, type)
        self.status = status
        self.detail = detail
        self.title = title or _phrase_of(status)
        self.type = type
        self.extensions = extensions

    def __str__(self) -> str:
        return f"{self.status} {self.title}{': ' if self.detail else ''}{self.detail}"

    def members(self) -> dict[str, Any]:
        """Return the problem details as JSON has them."""
        found = {"type": self.type, "title": self.title, "status": self.status}
        if self.detail:
            found["detail"] = self.detail
        return {**self.extensions, **found}


#: RFC 9110's phrases, where those of Python before 3.13 are older.
_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


def _phrase_of(status: int) -> str:
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
