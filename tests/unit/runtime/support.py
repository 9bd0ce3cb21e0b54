"""What the runtime's unit tests share: definitions, an app without servers, recorders."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from convotic_celery.app import ConvoticApp
from convotic_celery.runtime.delivery.payload import PayloadBuilder
from convotic_celery.runtime.worker.consumer import HandlerConsumer
from convotic_celery.runtime.worker.request_class import request_maker
from convotic_celery.sdk.handler import HandlerDefinition, define_handler
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.settings import Settings
from convotic_pubsub import queue
from convotic_pubsub.queue import Received

NO_STORE = {"redis_url": "redis://127.0.0.1:1/0", "store_timeout": 0.001}
PUBLISHED_AT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)


async def do_nothing(message: Any, ctx: Any) -> None:
    """Succeed."""


def define(
    handler: Callable[..., Any] = do_nothing,
    *,
    topic: str = "orders.new",
    module: str = "shop",
    **options: Any,
) -> HandlerDefinition:
    """Return a definition with these options."""
    return define_handler(
        handler,
        module=module,
        module_version="1",
        topic=topic,
        name=None,
        options=WorkerOptions(**options),
    )


def make_settings(**values: Any) -> Settings:
    """Return settings that name servers that don't run: a test that connects fails, at once."""
    # Without the timeout each call would be tried for three seconds.
    nowhere = {} if "redis_url" in values else NO_STORE
    return Settings(**{"broker_url": "pubsub://unit", "modules": [], **nowhere, **values})


def make_app(*definitions: HandlerDefinition) -> ConvoticApp:
    """Return an app with these handlers, finalized."""
    app = ConvoticApp(make_settings(), definitions)
    app.set_default()
    app.finalize()
    for definition in definitions:
        task: Any = app.tasks[definition.queue]
        task.execution = replace(task.execution, attempts=None, replays=None)  # there is no store
    return app


def make_consumer(app: ConvoticApp, pool: Any) -> HandlerConsumer:
    """Return the consumer that a worker of the app has; it is connected to nothing."""
    worker = SimpleNamespace(use_eventloop=True)
    return HandlerConsumer(
        lambda *_: None, app=app, pool=pool, hostname="unit@here", controller=worker
    )


def receive(data: bytes = b'{"id": 1}', **values: Any) -> Received:
    """Return a delivery."""
    fields: dict[str, Any] = {
        "subscription": "orders.new.shop",
        "message_id": "m-1",
        "data": data,
        "attributes": {},
        "ordering_key": "",
        "published_at": PUBLISHED_AT,
        "delivery_attempt": 1,
    }
    return Received(**{**fields, **values})


class RecordingMessage:
    """Stands for ``convotic_pubsub.kombu.channel.Message``: records what is done to it."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.body = payload["body"]
        self.headers = payload["headers"]
        self.properties = payload["properties"]
        self.delivery_info = self.properties["delivery_info"]
        self.content_type = payload["content-type"]
        self.content_encoding = payload["content-encoding"]
        self.payload: tuple[list[bytes], dict[str, Any], dict[str, Any]] = ([self.body], {}, {})
        self.held_seconds: float | None = None
        self.settlements: list[tuple[Any, ...]] = []
        self.settled = threading.Event()
        #: Of the monotonic clock.
        self.made_at, self.settled_at = time.monotonic(), 0.0

    def started(self, hold_seconds: float) -> None:
        self.held_seconds = hold_seconds

    def settle(self, settlement: queue.Settlement) -> None:
        match settlement:
            case queue.Acknowledge():
                self._settle("ack")
            case queue.Lapse():
                self._settle("lapse", settlement.delay_seconds)
            case queue.Defer():
                self._settle("defer", settlement.delay_seconds)
            case queue.DeadLetter():
                self._settle("dead_letter", dict(settlement.attributes))
            case queue.Return():
                self._settle("return_unrun")

    def _settle(self, *settlement: Any) -> None:
        self.settlements.append(settlement)
        self.settled_at = time.monotonic()
        self.settled.set()

    def least_delay(self, seconds: float) -> float:
        """Return what is left of so many seconds, of which its run has taken a part."""
        rounding = 0.01  # of two clocks
        return seconds - (self.settled_at - self.made_at) - rounding

    @property
    def settlement(self) -> tuple[Any, ...]:
        """The one settlement; fails on none or two."""
        assert len(self.settlements) == 1, self.settlements
        return self.settlements[0]


class RecordingEventer:
    """Stands for Celery's event dispatcher."""

    enabled = True

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


def make_request(
    app: ConvoticApp,
    definition: HandlerDefinition,
    pool: Any,
    received: Received | None = None,
    *,
    attempt: int = 1,
) -> tuple[Any, RecordingMessage, RecordingEventer]:
    """Return Celery's request for a delivery, with its message and events."""
    builder = PayloadBuilder.for_queue(definition.queue, definition.subscription)
    return request_of(app, definition, pool, builder.build(received or receive(), attempt=attempt))


def request_of(
    app: ConvoticApp, definition: HandlerDefinition, pool: Any, payload: Mapping[str, Any]
) -> tuple[Any, RecordingMessage, RecordingEventer]:
    """Return Celery's request for a payload, with its message and events."""
    message, eventer = RecordingMessage(payload), RecordingEventer()
    task: Any = app.tasks[definition.queue]
    request: Any = request_maker(task, pool, "unit", eventer)(message)
    return request, message, eventer


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
