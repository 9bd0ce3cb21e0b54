"""The sample module's own tests, written as a module author writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from httpx import ASGITransport, AsyncClient

from convotic_celery.routes import create_asgi_app
from convotic_celery.testing import convotic_app
from convotic_order_processor import module

ORDER = {
    "id": 1,
    "customer_id": "c-1",
    "customer_name": "Ann",
    "customer_email": "ann@example.com",
    "quantity": 2,
    "total": 29.33,
}


async def test_an_order_makes_a_contact() -> None:
    """Found or created, tagged, and its totals counted."""
    async with convotic_app(module) as app:
        await app.publish("custom.orders.new", data=ORDER)
        await app.drain()

        contact = await app.ctx.contacts.find_by_external_id("c-1")

    assert contact is not None
    assert (contact.first_name, contact.email) == ("Ann", "ann@example.com")
    assert contact.tags == {"has-order"}
    assert contact.totals == {"orders": 1, "units": 2, "amount": Decimal("29.33")}


async def test_an_order_that_comes_twice_counts_once() -> None:
    """With two message ids, as when a publisher repeats its publish."""
    async with convotic_app(module) as app:
        contact = await app.ctx.contacts.create(external_id="c-1")
        conversation = await app.ctx.conversations.create(contact.id)
        for _ in range(2):
            await app.publish("custom.orders.new", data=ORDER)
        await app.drain()

        contact = await app.ctx.contacts.get(contact.id)
        sent = await app.ctx.messages.list(conversation.id)

    assert contact.totals["orders"] == 1
    assert [message.text for message in sent.items] == [
        "Thank you for your order #1! We'll keep you updated."
    ]


@pytest.mark.parametrize("data", [{"customer_id": "c-1"}, {"id": 1}, [], None])
async def test_what_is_no_order_is_given_up(data: object) -> None:
    """At once, with the reason."""
    async with convotic_app(module) as app:
        await app.publish("custom.orders.new", data=data, attributes={"source": "test"})
        await app.drain()

        assert [dead.reason for dead in app.dead_letters] == ["invalid"]


async def test_the_route_publishes_the_order() -> None:
    """POST /orders answers 202, and the handler gets it."""
    async with convotic_app(module) as app:
        transport = ASGITransport(create_asgi_app(app=app.app))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/orders", json=ORDER)
        await app.drain()

        assert answer.status_code == 202
        assert answer.json()["message_id"] == app.published[0].id
        assert await app.ctx.contacts.find_by_external_id("c-1") is not None
