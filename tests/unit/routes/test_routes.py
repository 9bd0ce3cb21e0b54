"""What a request becomes, what an answer becomes, and which status an error is."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    Problem,
    RouteRequest,
    RouteResponse,
    SyncConvoticContext,
)
from convotic_celery.errors import PublishNotConfirmed, StoreUnavailable
from convotic_pubsub.errors import BrokerUnavailable
from tests.unit.routes.conftest import FakePublisher, MakeClient


class Order(BaseModel):
    id: int
    total: Decimal = Decimal(0)


@dataclass
class Accepted:
    id: int


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    members: dict[str, Any] = response.json()
    assert members["status"] == response.status_code
    return members


async def test_seeds_route(
    module: ConvoticModule, make_client: MakeClient, publisher: FakePublisher
) -> None:
    """The seed's example, line by line: publish, answer 202."""

    @module.route("POST", "/orders")
    async def create_order(request: RouteRequest, ctx: ConvoticContext) -> dict[str, Any]:
        await ctx.pubsub.publish(
            "custom.orders.new", {"data": request.body, "attributes": {"source": "api"}}
        )
        return {"status": 202, "body": {"message": "Order queued for processing"}}

    response = await make_client().post(
        "/orders", json={"id": 1}, headers={"traceparent": "00-a", "x-request-id": "r-1"}
    )

    assert response.status_code == 202
    assert response.json() == {"message": "Order queued for processing"}
    assert response.headers["x-request-id"] == "r-1"
    assert publisher.sent == [
        ("custom.orders.new", {"id": 1}, {"source": "api", "traceparent": "00-a"})
    ]


async def test_request_is_whole(module: ConvoticModule, make_client: MakeClient) -> None:
    """Path, query and headers reach the handler; the body is validated."""
    seen: list[RouteRequest[Order]] = []

    @module.route("PUT", "/orders/{order_id}/{rest:path}")
    async def change(request: RouteRequest[Order], ctx: ConvoticContext) -> None:
        del ctx
        seen.append(request)

    response = await make_client().put(
        "/orders/a%20b/c/d?x=1&x=2&y=3", json={"id": "7"}, headers={"X-Shop": "s"}
    )

    assert (response.status_code, response.content) == (204, b"")
    (request,) = seen
    assert (request.method, request.path) == ("PUT", "/orders/a b/c/d")
    assert request.body == Order(id=7)
    assert request.path_params == {"order_id": "a b", "rest": "c/d"}
    assert request.query == {"x": "2", "y": "3"}
    assert request.query_lists == {"x": ("1", "2"), "y": ("3",)}
    assert request.headers["x-shop"] == "s"
    assert request.id == response.headers["x-request-id"]
    assert "x-shop" not in repr(request)
    assert "Order" not in repr(request)


async def test_plain_handler_runs_in_a_thread(
    module: ConvoticModule, make_client: MakeClient
) -> None:
    """With the plain context; the event loop stays free."""
    threads: list[threading.Thread] = []

    @module.route("POST", "/orders")
    def create_order(request: RouteRequest[Order], ctx: SyncConvoticContext) -> str:
        threads.append(threading.current_thread())
        return ctx.pubsub.publish("custom.orders.new", data=request.body)

    response = await make_client().post("/orders", json={"id": 1})

    assert response.json() == "17"
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize(
    ("answer", "status", "content", "media_type"),
    [
        (Order(id=1), 201, b'{"id":1,"total":"0"}', "application/json"),
        (Accepted(1), 201, b'{"id":1}', "application/json"),
        ([Order(id=1)], 201, b'[{"id":1,"total":"0"}]', "application/json"),
        (RouteResponse(Order(id=1)), 201, b'{"id":1,"total":"0"}', "application/json"),
        (RouteResponse({"a": 1}, 203), 203, b'{"a":1}', "application/json"),
        (RouteResponse(b"\x00", 200, {"content-type": "image/png"}), 200, b"\x00", "image/png"),
        ({"status": 204, "body": {"a": 1}}, 204, b"", None),
        ({"status": 302, "headers": {"location": "/x"}}, 302, b"", None),
        (None, 204, b"", None),
    ],
)
async def test_answers(  # noqa: PLR0917 - one case has many sides
    module: ConvoticModule,
    make_client: MakeClient,
    answer: Any,
    status: int,
    content: bytes,
    media_type: str | None,
) -> None:
    """A mapping with a status, a RouteResponse, anything with a JSON form, or nothing."""

    @module.route("GET", "/", status=201)
    async def handler(request: RouteRequest, ctx: ConvoticContext) -> Any:
        del request, ctx
        return answer

    response = await make_client().get("/")

    assert (response.status_code, response.content) == (status, content)
    assert response.headers.get("content-type") == media_type


@pytest.mark.parametrize(
    "answer", [{"message": "no status"}, {"status": "ok"}, {"status": 202, "content": 1}, object()]
)
async def test_wrong_answer_is_our_fault(
    module: ConvoticModule,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    answer: Any,
) -> None:
    """500, with nothing of it told; the log says what was wrong."""

    @module.route("GET", "/x")
    async def handler(request: RouteRequest, ctx: ConvoticContext) -> Any:
        del request, ctx
        return answer

    with caplog.at_level(logging.ERROR):
        response = await make_client().get("/x", headers={"x-request-id": "r-9"})

    assert problem_of(response) == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
    }
    (record,) = caplog.records
    assert record.convotic_fields == {"route": "GET /x", "module": "shop", "request_id": "r-9"}  # type: ignore[attr-defined]  # one of ours
    assert record.exc_info


@pytest.fixture
async def client(module: ConvoticModule, make_client: MakeClient) -> AsyncIterator[Any]:
    """Routes for what goes wrong before a handler is called."""

    @module.route("POST", "/typed")
    async def typed(request: RouteRequest[Order], ctx: ConvoticContext) -> Any:
        del ctx
        return request.body

    @module.route("POST", "/any")
    async def anything(request: RouteRequest, ctx: ConvoticContext) -> Any:
        del ctx
        return [request.body]

    @module.route("DELETE", "/any")
    async def delete(request: RouteRequest, ctx: ConvoticContext) -> None: ...

    @module.route("POST", "/bytes")
    async def raw(request: RouteRequest[bytes], ctx: ConvoticContext) -> RouteResponse[bytes]:
        del ctx
        return RouteResponse(request.body)

    async with make_client(routes_max_body_bytes=100) as client:
        yield client


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path", ["/typed", "/any"])
@pytest.mark.parametrize("content", [b"{", b"\xff", b"nope", b"[" * 99])
async def test_malformed_body_is_400(client: httpx.AsyncClient, path: str, content: bytes) -> None:
    """It is no JSON, in either direction."""
    response = await client.post(path, content=content, headers=JSON)

    assert problem_of(response)["status"] == 400
    assert "not JSON" in problem_of(response)["detail"]


@pytest.mark.parametrize("path", ["/typed", "/any"])
@pytest.mark.parametrize("number", ["1e400", "-1E+0999", "9e308", "NaN", "Infinity"])
async def test_a_number_that_is_none_is_400(
    client: httpx.AsyncClient, path: str, number: str
) -> None:
    """It became infinity, and sending it back, or publishing it, was a 500."""
    content = f'{{"numbers": [{number}]}}'
    response = await client.post(path, content=content, headers=JSON)

    assert problem_of(response)["status"] == 400
    assert "out of range" in problem_of(response)["detail"]


async def test_text_with_a_number_in_it_is_text(client: httpx.AsyncClient) -> None:
    """And 1e308 is a number."""
    content = b'["1e400 NaN", 1e308, 1e-400]'
    response = await client.post("/any", content=content, headers=JSON)

    assert response.json() == [["1e400 NaN", 1e308, 0.0]]


async def test_invalid_body_is_422(client: httpx.AsyncClient) -> None:
    """Each value at fault is pointed at, and not repeated."""
    response = await client.post("/typed", json={"id": "secret", "total": {}})

    members = problem_of(response)
    assert members["status"] == 422
    assert [error["pointer"] for error in members["errors"]] == ["#/id", "#/total"]
    assert "secret" not in response.text


async def test_missing_body_is_422_where_one_is_wanted(client: httpx.AsyncClient) -> None:
    """Elsewhere it is None."""
    assert problem_of(await client.post("/typed"))["status"] == 422
    assert (await client.post("/any")).json() == [None]


async def test_other_content_is_415(client: httpx.AsyncClient) -> None:
    """A form, or nothing said; JSON of any kind and raw bytes are taken."""
    form = await client.post("/typed", data={"id": "1"})
    unnamed = await client.post("/any", content=b"{}")
    event = await client.post(
        "/any", content=b"{}", headers={"content-type": "application/x+json; charset=utf-8"}
    )
    raw = await client.post("/bytes", content=b"\xff")

    assert problem_of(form)["status"] == problem_of(unnamed)["status"] == 415
    assert event.json() == [{}]
    assert raw.content == b"\xff"


async def test_large_body_is_413(client: httpx.AsyncClient) -> None:
    """With a length, and in chunks without one."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b'"aaaaaaaa"'

    stated = await client.post("/any", content=b"x" * 101, headers=JSON)
    chunked = await client.post("/any", content=chunks(), headers=JSON)
    fits = await client.post("/any", content=b'"' + b"x" * 98 + b'"', headers=JSON)

    assert "at most 100 bytes" in problem_of(stated)["detail"]
    assert problem_of(chunked)["status"] == 413
    assert fits.status_code == 200


async def test_unknown_path_is_404_and_method_405(client: httpx.AsyncClient) -> None:
    """405 says which methods there are."""
    unknown = await client.get("/nothing")
    wrong = await client.put("/any")

    assert problem_of(unknown) == {"type": "about:blank", "title": "Not Found", "status": 404}
    assert problem_of(wrong)["status"] == 405
    assert set(wrong.headers["allow"].split(", ")) == {"POST", "DELETE"}


async def test_literal_path_wins(module: ConvoticModule, make_client: MakeClient) -> None:
    """Whatever the order of registration."""

    def register(path: str) -> None:
        async def handler(request: RouteRequest, ctx: ConvoticContext) -> str:
            del request, ctx
            return path

        module.route("GET", path)(handler)

    for path in ("/{rest:path}", "/orders/{order_id}", "/orders/new", "/orders"):
        register(path)
    client = make_client()

    assert (await client.get("/orders/new")).json() == "/orders/new"
    assert (await client.get("/orders/7")).json() == "/orders/{order_id}"
    assert (await client.get("/orders")).json() == "/orders"
    assert (await client.get("/a/b")).json() == "/{rest:path}"
    assert (await client.head("/orders/new")).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Problem(409, "paid already", order_id="17"), 409, "paid already"),
        (StoreUnavailable("redis://secret is away"), 503, "does not answer"),
        (PublishNotConfirmed("t", 60), 503, "does not answer"),
        (ValueError("secret"), 500, None),
    ],
)
async def test_errors_of_a_handler(
    module: ConvoticModule,
    make_client: MakeClient,
    error: Exception,
    status: int,
    detail: str | None,
) -> None:
    """A problem is the caller's to read; of others, only whether to try again."""

    @module.route("GET", "/x")
    async def handler(request: RouteRequest, ctx: ConvoticContext) -> None:
        del request, ctx
        raise error

    response = await make_client().get("/x")

    members = problem_of(response)
    assert members["status"] == status
    assert (detail or "") in members.get("detail", "")
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    assert members.get("order_id") == ("17" if status == 409 else None)


async def test_bad_request_id_is_replaced(client: httpx.AsyncClient) -> None:
    """It would be written to logs."""
    response = await client.post("/any", headers={"x-request-id": "a b"})

    assert len(response.headers["x-request-id"]) == 32


async def test_documents_are_served(client: httpx.AsyncClient) -> None:
    """A page that can try each route, with everything from this server; / leads there."""
    document = (await client.get("/openapi.json")).json()
    page = await client.get("/", follow_redirects=True)

    assert set(document["paths"]) == {"/typed", "/any", "/bytes"}
    assert page.url.path == "/docs"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        assert (await client.get(path)).status_code == 200, path


async def test_broker_that_is_away_hinders_only_who_publishes(
    module: ConvoticModule, make_client: MakeClient, publisher: FakePublisher
) -> None:
    """503 for them; the others are answered."""
    publisher.error = BrokerUnavailable("no emulator answers at secret:1")

    @module.route("POST", "/orders")
    async def create_order(request: RouteRequest, ctx: ConvoticContext) -> None:
        await ctx.pubsub.publish("custom.orders.new", data=request.body)

    @module.route("GET", "/hello")
    async def hello(request: RouteRequest, ctx: ConvoticContext) -> str:
        del request, ctx
        return "hello"

    client = make_client()
    refused = await client.post("/orders", json=1)

    assert problem_of(refused)["status"] == 503
    assert "secret" not in refused.text
    assert (await client.get("/hello")).json() == "hello"
