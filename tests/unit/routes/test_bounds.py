"""What one request may cost: a slow body, a faulty one, a header that can't travel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from convotic_celery import ConvoticContext, ConvoticModule, RouteRequest
from convotic_celery.routes import body
from tests.support.memory import peak_memory
from tests.unit.routes.conftest import FakePublisher, MakeClient


async def test_a_body_that_does_not_arrive_is_408(
    module: ConvoticModule, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed with it: a client can't keep one by sending nothing."""
    monkeypatch.setattr(body, "_GRACE_SECONDS", 0.05)

    @module.route("POST", "/orders")
    async def create(request: RouteRequest, ctx: ConvoticContext) -> None: ...

    async def half() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await make_client().post(
        "/orders", content=half(), headers={"content-type": "application/json"}
    )

    assert response.status_code == 408
    assert response.headers["connection"] == "close"


async def test_a_million_faults_cost_no_seconds(
    module: ConvoticModule, make_client: MakeClient
) -> None:
    """Only the first is described, and the event loop goes on meanwhile."""

    @module.route("POST", "/names")
    async def create(request: RouteRequest[list[str]], ctx: ConvoticContext) -> None: ...

    content = json.dumps([1] * 1_000_000).encode()
    with peak_memory() as peak:
        response = await make_client().post(
            "/names", content=content, headers={"content-type": "application/json"}
        )

    assert response.status_code == 422
    assert len(response.json()["errors"]) == 1
    assert peak.size < 100_000_000


async def test_a_trace_header_that_can_t_travel_is_dropped(
    module: ConvoticModule, make_client: MakeClient, publisher: FakePublisher
) -> None:
    """An attribute has at most 1,024 bytes; the publish goes on without it."""

    @module.route("POST", "/orders")
    async def create(request: RouteRequest, ctx: ConvoticContext) -> Any:
        return await ctx.pubsub.publish("custom.orders.new", data=request.body)

    response = await make_client().post(
        "/orders", json=1, headers={"traceparent": "00-a", "tracestate": "x" * 1025}
    )

    assert response.status_code == 200
    assert publisher.sent == [("custom.orders.new", 1, {"traceparent": "00-a"})]
