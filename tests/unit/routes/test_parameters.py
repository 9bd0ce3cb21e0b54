"""What stands behind ``(request, ctx)`` in a route's handler is FastAPI's to fill."""

# ruff: noqa: ARG001, B008 - handlers take what they are given; FastAPI's form without Annotated

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, Query
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from convotic_celery import ConvoticContext, ConvoticModule, RouteRequest, SyncConvoticContext
from convotic_celery.errors import HandlerSignatureError, ModuleError
from convotic_celery.routes.application import build_openapi
from tests.unit.routes.conftest import FakePublisher, MakeClient

EVENTS: list[str] = []


class Order(BaseModel):
    id: int


async def open_session() -> AsyncIterator[str]:
    """Open something for the time of a request."""
    EVENTS.append("open")
    yield "session"
    EVENTS.append("close")


def find_user(token: Annotated[str, Header()]) -> str:
    """Refuse who has no good token."""
    if token != "secret":
        raise HTTPException(401, "Who are you?", headers={"www-authenticate": "Bearer"})
    return "ada"


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_dependencies_and_parameters_are_filled(
    module: ConvoticModule, make_client: MakeClient, publisher: FakePublisher, is_async: bool
) -> None:
    """Converted to the annotated type; a yielding dependency is closed after the answer."""
    EVENTS.clear()

    async def create(  # noqa: PLR0917 - as users write it
        request: RouteRequest[Order],
        ctx: ConvoticContext,
        order_id: int,
        limit: Annotated[int, Query(ge=1)] = 10,
        user: str = Depends(find_user),
        session: str = Depends(open_session),
    ) -> list[Any]:
        EVENTS.append("run")
        return [request.body, order_id, limit, user, session]

    def create_plainly(
        request: RouteRequest[Order],
        ctx: SyncConvoticContext,
        *,
        order_id: int,
        limit: Annotated[int, Query(ge=1)] = 10,
        user: str = Depends(find_user),
        session: str = Depends(open_session),
    ) -> list[Any]:
        EVENTS.append("run")
        return [request.body, order_id, limit, user, session]

    module.route("POST", "/orders/{order_id}")(create if is_async else create_plainly)

    response = await make_client().post(
        "/orders/7?limit=3", json={"id": 1}, headers={"token": "secret"}
    )

    assert response.json() == [{"id": 1}, 7, 3, "ada", "session"]
    assert EVENTS == ["open", "run", "close"]


async def test_what_does_not_fit_is_a_problem(
    module: ConvoticModule, make_client: MakeClient
) -> None:
    """Where it stands and why, never its value; what a dependency raises keeps its headers."""

    @module.route("GET", "/orders/{order_id}")
    async def show(
        request: RouteRequest,
        ctx: ConvoticContext,
        order_id: int,
        limit: Annotated[int, Query(le=9)] = 1,
        user: str = Depends(find_user),
    ) -> str:
        return user

    client = make_client()
    wrong = await client.get("/orders/x?limit=10", headers={"token": "secret"})
    stranger = await client.get("/orders/1", headers={"token": "x", "x-request-id": "r-1"})

    assert wrong.headers["content-type"] == "application/problem+json"
    assert wrong.status_code == 422
    assert [(e["in"], e["parameter"]) for e in wrong.json()["errors"]] == [
        ("path", "order_id"),
        ("query", "limit"),
    ]
    assert stranger.json()["detail"] == "Who are you?"
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert stranger.headers["x-request-id"] == "r-1"


def test_parameters_and_security_are_documented(module: ConvoticModule) -> None:
    """The document has what FastAPI makes of them, and each path parameter once."""

    @module.route("GET", "/orders/{order_id}/{line}")
    async def show(
        request: RouteRequest,
        ctx: ConvoticContext,
        order_id: int,
        limit: int = 1,
        token: Any = Depends(HTTPBearer()),
    ) -> None: ...

    document = build_openapi(module.collect().routes)

    operation = document["paths"]["/orders/{order_id}/{line}"]["get"]
    parameters = {p["name"]: (p["in"], p["schema"]["type"]) for p in operation["parameters"]}
    assert parameters == {
        "order_id": ("path", "integer"),
        "line": ("path", "string"),
        "limit": ("query", "integer"),
    }
    assert operation["security"] == [{"HTTPBearer": []}]


def test_a_second_body_is_refused(module: ConvoticModule) -> None:
    """When the application is made, with file and line."""

    @module.route("POST", "/orders")
    async def create(request: RouteRequest, ctx: ConvoticContext, order: Order) -> None: ...

    with pytest.raises(ModuleError, match=r"test_parameters.py:\d+: POST /orders .*request.body"):
        build_openapi(module.collect().routes)


def test_an_annotation_that_can_t_be_evaluated_is_refused(module: ConvoticModule) -> None:
    """As for bodies."""

    async def show(request: RouteRequest, ctx: ConvoticContext, user: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the test's point

    with pytest.raises(HandlerSignatureError, match="'Missing' of user can't be evaluated"):
        module.route("GET", "/")(show)
