"""A web application made of one module, asked in-process; nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import pytest

from convotic_celery.app import ConvoticApp
from convotic_celery.context import Services
from convotic_celery.routes import create_asgi_app
from convotic_celery.sdk import ConvoticModule
from convotic_celery.settings import Settings
from convotic_pubsub.outgoing import OutgoingMessage


@dataclass
class FakePublisher:
    """Records what is published, and confirms it."""

    error: Exception | None = None
    sent: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    def publish(self, message: OutgoingMessage, **_: Any) -> Future[str]:
        self.sent.append((message.topic, json.loads(message.data), dict(message.attributes)))
        future: Future[str] = Future()
        if self.error:
            future.set_exception(self.error)
        else:
            future.set_result("17")
        return future


MakeClient: TypeAlias = Callable[..., httpx.AsyncClient]


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def module() -> ConvoticModule:
    return ConvoticModule(name="shop", version="1")


@pytest.fixture
def make_client(module: ConvoticModule, publisher: FakePublisher) -> MakeClient:
    """Make a client of the module's routes, as they are registered by then."""

    def plug_in(services: Services) -> None:
        services.publisher = publisher

    def make(**settings: Any) -> httpx.AsyncClient:
        values = {"modules": [], "broker_url": "pubsub://p", "redis_url": "redis://127.0.0.1:1"}
        sdk = module.collect()
        app = ConvoticApp(
            Settings(**{**values, **settings}),
            sdk.handlers,
            routes=sdk.routes,
            services_hook=plug_in,
            set_as_current=False,
        )
        transport = httpx.ASGITransport(app=create_asgi_app(app=app))
        return httpx.AsyncClient(transport=transport, base_url="http://shop")

    return make
