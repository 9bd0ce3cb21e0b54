"""What a server's start and end do."""

from __future__ import annotations

import pytest

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp
from convotic_celery.routes import create_asgi_app
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
