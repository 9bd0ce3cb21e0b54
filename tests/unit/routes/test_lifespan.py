"""What a server's start and end do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp
from convotic_celery.routes import create_asgi_app
from convotic_celery.sdk import ConvoticModule, RouteRequest
from convotic_celery.settings import Settings
from convotic_pubsub.errors import BrokerUnavailable


class CountingApp(ConvoticApp):
    """Counts connections instead of making them."""

    connected = 0
    error: Exception | None = None

    def connect_publisher(self) -> None:
        self.connected += 1
        if self.error:
            raise self.error


@pytest.fixture
def app() -> CountingApp:
    settings = Settings(modules=[], broker_url="pubsub://p", redis_url="redis://127.0.0.1:1")
    return CountingApp(settings, [], set_as_current=False)


async def test_start_connects_and_serves_the_facade(app: CountingApp) -> None:
    """One session: what a route publishes through the façade goes the same way."""
    application = create_asgi_app(app=app)

    try:
        async with application.router.lifespan_context(application):
            assert app.connected == 1
            assert pubsub._find_app() is app
    finally:
        pubsub.use(None)


async def test_start_waits_for_no_broker(
    app: CountingApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning; what is wrong with settings is an error still."""
    application = create_asgi_app(app=app)
    app.error = BrokerUnavailable("no emulator answers")

    try:
        async with application.router.lifespan_context(application):
            assert "does not answer yet" in caplog.text
    finally:
        pubsub.use(None)


class Doors:
    """Two modules with a lifespan each, and two routes of the first."""

    def __init__(self, *, broken: bool = False) -> None:
        self.events: list[str] = []
        self.broken = broken
        one = ConvoticModule(name="one", version="1", lifespan=self.open_one)
        two = ConvoticModule(name="two", version="1", lifespan=self.open_two)
        one.route("GET", "/a")(self.answer)
        one.route("GET", "/b")(self.answer)
        two.route("GET", "/c")(self.answer)
        settings = Settings(modules=[], broker_url="pubsub://p", redis_url="redis://127.0.0.1:1")
        routes = [route for module in (one, two) for route in module.collect().routes]
        self.app = CountingApp(settings, [], routes=routes, set_as_current=False)

    @asynccontextmanager
    async def open_one(self) -> AsyncIterator[None]:
        self.events.append("open one")
        yield
        self.events.append("close one")

    @asynccontextmanager
    async def open_two(self) -> AsyncIterator[None]:
        if self.broken:
            raise ConnectionError("the database is away")
        self.events.append("open two")
        yield
        self.events.append("close two")

    async def answer(self, request: RouteRequest, ctx: Any) -> None:
        """Never called here."""


async def test_modules_lifespans_are_the_server_s() -> None:
    """Open before the first request, each once; closed at the end, the last one first."""
    doors = Doors()
    application = create_asgi_app(app=doors.app)

    try:
        async with application.router.lifespan_context(application):
            assert doors.events == ["open one", "open two"]
    finally:
        pubsub.use(None)

    assert doors.events[2:] == ["close two", "close one"]


async def test_a_lifespan_that_fails_stops_the_server() -> None:
    """With its error; what was open already is closed."""
    doors = Doors(broken=True)
    application = create_asgi_app(app=doors.app)

    try:
        with pytest.raises(ConnectionError, match="database is away"):
            async with application.router.lifespan_context(application):
                pytest.fail("it started")
    finally:
        pubsub.use(None)

    assert doors.events == ["open one", "close one"]
