"""The seed's three code examples, line by line in Python, run as they are.

Types are left out where the seed has none: ``message.data`` and ``request.body`` are any JSON.
"""

# ruff: noqa: PLE1205, TRY400 - the seed's calls; ctx.logger takes fields as a second argument

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    RouteRequest,
    Sdk,
    WorkerMessage,
    WorkerOptions,
)
from convotic_celery.routes import create_asgi_app
from convotic_celery.testing import convotic_app

ORDER = {
    "id": 7,
    "customer_id": "c-1",
    "customer_name": "Ann",
    "customer_email": "ann@example.com",
}


def register(sdk: Sdk) -> None:
    """The first example, "Basic example"."""

    async def handler(message: WorkerMessage, ctx: ConvoticContext) -> None:
        order = message.data
        ctx.logger.info("Processing order", {"orderId": order["id"]})

        # Find or create the contact
        contact = await ctx.contacts.find_by_external_id(order["customer_id"])
        if not contact:
            contact = await ctx.contacts.create(
                external_id=order["customer_id"],
                first_name=order["customer_name"],
                email=order["customer_email"],
            )

        # Tag the contact
        await ctx.contacts.add_tag(contact.id, "has-order")

        # Send a confirmation message if the contact has a conversation
        conversation = await ctx.conversations.find_by_contact_id(contact.id)
        if conversation:
            await ctx.messages.send(
                conversation.id,
                {"text": f"Thank you for your order #{order['id']}! We'll keep you updated."},
            )

    sdk.register_worker_handler(topic="custom.orders.new", handler=handler)


order_processor = ConvoticModule(name="order-processor", version="1.0.0", register=register)


def register_route(sdk: Sdk) -> None:
    """The second example, "Publishing messages to a topic"."""

    async def handler(req: RouteRequest, ctx: ConvoticContext) -> dict[str, Any]:
        # Publish to the custom topic for async processing
        await ctx.pubsub.publish(
            "custom.orders.new",
            {
                "data": req.body,
                "attributes": {
                    "source": "api",
                },
            },
        )
        return {"status": 202, "body": {"message": "Order queued for processing"}}

    sdk.register_route(method="POST", path="/orders", handler=handler)


order_routes = ConvoticModule(name="order-routes", version="1.0.0", register=register_route)


async def process_order(order: Any) -> None:
    """What the third example calls."""
    raise ValueError(f"order {order['id']} can't be processed")


def register_failing(sdk: Sdk) -> None:
    """The third example, "Error handling and retries"."""

    async def handler(message: WorkerMessage, ctx: ConvoticContext) -> None:
        try:
            await process_order(message.data)
        except Exception as error:
            ctx.logger.error(
                "Failed to process order",
                {
                    "orderId": message.data["id"],
                    "error": str(error),
                },
            )
            raise  # Re-throw to trigger retry

    sdk.register_worker_handler(
        topic="custom.orders.new",
        options=WorkerOptions(max_retries=3, ack_deadline=60),
        handler=handler,
    )


failing = ConvoticModule(name="failing", version="1.0.0", register=register_failing)


async def test_an_order_makes_a_tagged_contact() -> None:
    """With the order's name and address; without a conversation nothing is sent."""
    async with convotic_app(order_processor) as app:
        await app.publish("custom.orders.new", data=ORDER)
        (run,) = await app.drain()

        assert run.outcome == "succeeded"
        contact = await app.ctx.contacts.find_by_external_id("c-1")
        assert contact is not None
        assert (contact.first_name, contact.email) == ("Ann", "ann@example.com")
        assert contact.tags == {"has-order"}


async def test_a_customer_with_a_conversation_is_thanked() -> None:
    """The contact that is there is used, and the text is the seed's."""
    async with convotic_app(order_processor) as app:
        contact = await app.ctx.contacts.create(external_id="c-1")
        conversation = await app.ctx.conversations.create(contact.id)
        await app.publish("custom.orders.new", data=ORDER)
        await app.drain()

        assert await app.ctx.contacts.count() == 1
        assert (await app.ctx.contacts.get(contact.id)).tags == {"has-order"}
        sent = await app.ctx.messages.list(conversation.id)
        assert [message.text for message in sent.items] == [
            "Thank you for your order #7! We'll keep you updated."
        ]


async def test_the_route_queues_the_order() -> None:
    """202 with the seed's body; the handler gets the request's body, with the attribute."""
    async with convotic_app(order_routes, order_processor) as app:
        transport = ASGITransport(create_asgi_app(app=app.app))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/orders", json=ORDER)
        await app.drain()

        assert (answer.status_code, answer.json()) == (
            202,
            {"message": "Order queued for processing"},
        )
        (published,) = app.published
        assert (published.topic, published.data) == ("custom.orders.new", ORDER)
        assert published.attributes == {"source": "api"}
        assert await app.ctx.contacts.find_by_external_id("c-1")


async def test_what_is_thrown_again_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    """Three times, an ack deadline apart, each time with a line in the log; then dead-lettered."""
    async with convotic_app(failing) as app:
        begun = app.clock.now()
        with caplog.at_level(logging.ERROR):
            await app.publish("custom.orders.new", data=ORDER)
            runs = await app.drain()

        assert [run.outcome for run in runs] == ["retried"] * 3 + ["dead_lettered"]
        # Less what the runs took; the default's would be 90.
        assert timedelta(seconds=120) < app.clock.now() - begun <= timedelta(seconds=180)
        (dead,) = app.dead_letters
        assert (dead.reason, dead.data) == ("max-retries-exceeded", ORDER)
    lines = [line for line in caplog.records if "Failed to process order" in line.getMessage()]
    assert len(lines) == 4
    fields: Any = lines[0]
    assert fields.convotic_fields["orderId"] == 7
    assert fields.convotic_fields["error"] == "order 7 can't be processed"


def test_the_defaults_are_the_seed_s() -> None:
    """The first example gives no options: five retries, 30 seconds, one at a time."""
    (handler,) = order_processor.collect_handlers()

    options = handler.options
    assert (options.max_retries, options.ack_deadline, options.concurrency) == (5, 30, 1)
