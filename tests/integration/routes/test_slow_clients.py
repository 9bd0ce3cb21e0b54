"""Connections that send no whole request, against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from convotic_celery.app import ConvoticApp
from convotic_celery.routes import body, create_asgi_app, server
from convotic_celery.sdk import ConvoticModule, RouteRequest
from convotic_celery.settings import Settings
from tests.support.waiting import PATIENCE

POST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"


@pytest.fixture
async def address(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """A server with limits that a test can wait for."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(body, "_GRACE_SECONDS", 1.0)
    module = ConvoticModule(name="shop", version="1")

    @module.route("POST", "/x")
    async def answer(request: RouteRequest, ctx: object) -> None:
        del request, ctx

    settings = Settings(modules=[], broker_url="pubsub://p", redis_url="redis://127.0.0.1:1")
    app = ConvoticApp(settings, [], routes=module.collect().routes, set_as_current=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_asgi_app(app=app),
            http=server.PunctualProtocol,
            lifespan="off",
            log_config=None,
        )
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve(sockets=[listener]))
        yield listener.getsockname()
        running.should_exit = True
        await task


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", POST[:-2], POST + b"1", POST + b'"1234567"' + b"GET /"],
    ids=["nothing", "half a line", "half of the headers", "half a body", "a second half"],
)
async def test_unfinished_requests_end(address: tuple[str, int], sent: bytes) -> None:
    """Whatever is missing, the server closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)

    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()

    # By its beginning: a request's id, which is random, may have the digits, too.
    assert answer.startswith(b"HTTP/1.1 408 ") == (sent == POST + b"1")
    writer.close()
