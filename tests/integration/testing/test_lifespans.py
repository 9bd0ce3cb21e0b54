"""The modules' lifespans in tests of modules: open while the app is."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from httpx import ASGITransport, AsyncClient

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    RouteRequest,
    SyncConvoticContext,
    WorkerMessage,
)
from convotic_celery.errors import ResourceNotProvided
from convotic_celery.routes import create_asgi_app
from convotic_celery.testing import convotic_app


class Pool:
    """What a lifespan yields."""


async def test_a_lifespan_is_open_while_the_app_is() -> None:
    """Its object is reachable from ctx: in async and in plain handlers, and in routes."""
    events: list[str] = []

    @asynccontextmanager
    async def live() -> AsyncIterator[Pool]:
        events.append("open")
        yield Pool()
        events.append("close")

    module = ConvoticModule(name="shop", version="1", lifespan=live)
    found: list[Pool] = []

    @module.worker("topic-a")
    async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
        found.append(ctx.resource(Pool))

    @module.worker("topic-b")
    def handle_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
        found.append(ctx.resource(Pool))

    @module.route("GET", "/pool")
    async def answer(request: RouteRequest, ctx: ConvoticContext) -> None:
        found.append(ctx.resource(Pool))

    async with convotic_app(module) as app:
        assert events == ["open"]
        await app.publish("topic-a", data=1)
        await app.publish("topic-b", data=1)
        await app.drain()
        transport = ASGITransport(create_asgi_app(app=app.app))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/pool")).status_code == 204
        assert events == ["open"]

    assert found[0] is found[1] is found[2]
    assert events == ["open", "close"]


async def test_a_lifespan_that_fails_is_told_at_once() -> None:
    """As a worker that does not start; those before it are left."""
    events: list[str] = []

    @asynccontextmanager
    async def live() -> AsyncIterator[None]:
        events.append("open")
        yield
        events.append("close")

    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        raise ConnectionError("the database is away")
        yield

    first = ConvoticModule(name="first", version="1", lifespan=live)
    second = ConvoticModule(name="second", version="1", lifespan=fail)

    @first.worker("topic-a")
    async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None: ...

    @second.route("GET", "/")
    async def answer(request: RouteRequest, ctx: ConvoticContext) -> None: ...

    with pytest.raises(ConnectionError, match="the database is away"):
        async with convotic_app(first, second):
            events.append("inside")

    assert events == ["open", "close"]


async def test_a_resource_that_is_not_there_says_what_is() -> None:
    """It is the lifespan's, not a service's."""
    async with convotic_app(ConvoticModule(name="shop", version="1")) as app:
        with pytest.raises(ResourceNotProvided, match=r"lifespan yields, which is nothing: give"):
            app.ctx.resource(Pool)
