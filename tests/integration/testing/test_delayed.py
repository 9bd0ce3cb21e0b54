"""Delayed messages and announcements in ``convotic_app``: they move with the test's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from convotic_celery import ConvoticContext, ConvoticModule, Message, WorkerMessage
from convotic_celery.errors import InvalidDelay
from convotic_celery.testing import convotic_app


def make_module() -> ConvoticModule:
    """Return a module that reminds a minute later, and listens to what was sent."""
    module = ConvoticModule(name="shop", version="1")

    @module.worker("custom.orders.new")
    async def remind_later(message: WorkerMessage[str], ctx: ConvoticContext) -> None:
        await ctx.pubsub.publish("custom.orders.remind", data=message.data, delay=60)

    @module.worker("custom.orders.remind")
    async def remind(message: WorkerMessage[str], ctx: ConvoticContext) -> None:
        await ctx.messages.send(message.data, text="Remember", idempotency_key=message.id)

    @module.worker("messages.sent")
    async def on_sent(message: WorkerMessage[Message], ctx: ConvoticContext) -> None:
        assert isinstance(message.data, Message)
        await ctx.storage.set("sent", message.data.text)

    return module


async def test_delay_waits_for_the_clock() -> None:
    """Until then it is not published; a minute later it is, and what it sends is announced."""
    async with convotic_app(make_module()) as app:
        contact = await app.ctx.contacts.create()
        conversation = await app.ctx.conversations.create(contact.id)
        await app.publish("custom.orders.new", data=conversation.id)
        assert [run.handler for run in await app.run_due()] == ["custom.orders.new.shop"]
        app.clock.advance(59)
        assert await app.run_due() == []

        app.clock.advance(1)
        runs = await app.run_due()

        assert [run.handler for run in runs] == ["custom.orders.remind.shop", "messages.sent.shop"]
        assert await app.ctx.storage.get("sent") == "Remember"
        assert [message.topic for message in app.published] == [
            "custom.orders.new",
            "custom.orders.remind",
            "messages.sent",
        ]


async def test_drain_moves_the_clock_to_what_is_delayed() -> None:
    """However long that takes."""
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    async with convotic_app(make_module(), now=begun, topics=["custom.orders.elsewhere"]) as app:
        await app.ctx.pubsub.publish("custom.orders.elsewhere", data=1, delay=timedelta(days=30))

        await app.drain()

        assert [message.data for message in app.published] == [1]
        assert app.clock.now() - begun == timedelta(days=30)


async def test_cancelled_one_is_not_published() -> None:
    """As in production; so are the refusals."""
    async with convotic_app(make_module()) as app:
        schedule_id = await app.publish("custom.orders.new", data="c", delay=10)
        with pytest.raises(InvalidDelay):
            await app.publish("custom.orders.new", data="c", delay=-1)

        assert await app.ctx.pubsub.cancel(schedule_id)

        assert await app.drain() == []
        assert app.published == []
