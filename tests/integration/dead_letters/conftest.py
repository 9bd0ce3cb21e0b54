"""An app on the embedded servers, and dead letters as a worker writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters import DeadLetters
from convotic_celery.dead_letters.entry import PayloadMode
from convotic_celery.sdk.module import ConvoticModule
from convotic_celery.settings import Settings
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import QueueSpec, Received
from convotic_pubsub.registry import session_for
from convotic_pubsub.session import Session

TOPIC = "custom.orders.new"
SHOP, CRM = f"{TOPIC}.shop", f"{TOPIC}.shop.crm"


def make_module() -> ConvoticModule:
    """Return a module with two handlers on one topic; no worker runs them."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker(TOPIC, max_retries=0, deduplicate="message.id")
    async def process(message: Any, ctx: Any) -> None:
        pass

    @module.worker(TOPIC, name="crm", max_retries=0)
    async def tell_crm(message: Any, ctx: Any) -> None:
        pass

    return module


@dataclass
class Desk:
    """An app, and ways to make dead letters for it."""

    app: ConvoticApp
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _count: int = 0

    @property
    def dead_letters(self) -> DeadLetters:
        """What is tested."""
        return self.app.dead_letters

    @property
    def session(self) -> Session:
        """The app's connection."""
        return session_for(*self.app._broker_parameters())

    def spec(self, handler: str = SHOP) -> QueueSpec:
        """Return a handler's queue."""
        spec: QueueSpec = self.app.conf.broker_transport_options["queues"][handler]
        return spec

    def fail(
        self,
        data: object,
        *,
        handler: str = SHOP,
        message_id: str = "",
        reason: str = "max-retries-exceeded",
        error: str = "ValueError",
        text: str = "no stock",
        replays: int = 0,
        indexed: bool = True,
        **attributes: str,
    ) -> str:
        """Put a dead letter into the dead-letter topic, as a worker does; return its message id."""
        self._count += 1
        message_id = message_id or f"m{self._count}"
        prefix = "convotic-dead-letter-"
        at = datetime.now(UTC) + timedelta(microseconds=self._count)
        own = {
            "reason": reason,
            "message-id": message_id,
            "attempts": "3",
            "subscription": handler,
            "topic": TOPIC,
            "error-type": error,
            "error-message": text,
            "stack": f"shop:process\nstock:{error}",
            "at": at.isoformat(),
        }
        everything = {**attributes, **{f"{prefix}{name}": value for name, value in own.items()}}
        if replays:
            everything["convotic-replay-count"] = str(replays)
        spec = self.spec(handler)
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        dead_id = self.session.publish_confirmed(
            OutgoingMessage(spec.dead_letter_topic, body, everything)
        )
        if indexed:
            received = Received(spec.subscription, message_id, body, attributes, "", at, 1)
            assert spec.on_dead_letter is not None
            spec.on_dead_letter(received, everything, dead_id)
            self.app._recorder.flush()
        return message_id

    def pull(self, handler: str = SHOP) -> list[Received]:
        """Take what waits in a handler's subscription."""
        with self.session.resources.inspect(self.spec(handler).subscription) as inspection:
            seen = inspection.pull(1000)
            inspection.acknowledge([each.ack_id for each in seen])
            return [each.received for each in seen]

    def keep_payloads(self, mode: PayloadMode) -> None:
        """Have the entries of later dead letters keep so much of the data."""
        changed = replace(self.app._recorder._deployment, payload=mode)
        object.__setattr__(self.app._recorder, "_deployment", changed)

    def count_dead(self, handler: str = SHOP) -> int:
        """Return how many messages a dead-letter subscription has."""
        return self.count(self.spec(handler).dead_letter_topic)

    def count(self, subscription: str) -> int:
        """Return how many messages a subscription has."""
        return self.session.resources.backlog_sizes([subscription])[subscription].messages


def make_desk(settings: Settings) -> Desk:
    """Return an app with its topics and subscriptions made."""
    app = ConvoticApp(settings, make_module().collect().handlers, set_as_current=False)
    desk = Desk(app)
    for handler in (SHOP, CRM):
        desk.session.resources.ensure(desk.spec(handler))
    return desk


@pytest.fixture
def desk(data_dir: Path) -> Iterator[Desk]:
    """An app on embedded servers of its own."""
    desk = make_desk(Settings(data_dir=data_dir, modules=[]))
    yield desk
    desk.session.close()
    desk.app.store.close()
    desk.app.close()
