"""The sample module on a real Valkey: right when messages repeat and when orders run at once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from convotic_celery.context import Contact, ConvoticContext
from convotic_celery.sdk import WorkerMessage
from convotic_order_processor import module
from convotic_order_processor.orders import load_orders

(HANDLER,) = module.collect_handlers()


async def process(ctx: ConvoticContext, order: dict[str, Any], *, message_id: str = "1") -> None:
    """Run the handler on an order, decoded as the runtime decodes it."""
    message = WorkerMessage(
        id=message_id,
        data=HANDLER.decode_data(json.dumps(order).encode()),
        attributes={},
        published_at=datetime.now(UTC),
    )
    await HANDLER.handler(message, ctx)


async def read_all(ctx: ConvoticContext) -> list[Contact]:
    contacts: list[Contact] = []
    cursor = None
    while True:
        page = await ctx.contacts.list(limit=1000, cursor=cursor)
        contacts += page.items
        cursor = page.next_cursor
        if cursor is None:
            return contacts


async def test_smallest_order_makes_a_tagged_contact(ctx: ConvoticContext) -> None:
    """An order of two ids is enough."""
    await process(ctx, {"id": 1, "customer_id": "c-1"})

    contact = await ctx.contacts.find_by_external_id("c-1")
    assert contact is not None
    assert contact.tags == {"has-order"}
    assert contact.totals == {"orders": 1, "units": 1, "amount": 0}


async def test_new_contact_has_the_customers_name_and_address(ctx: ConvoticContext) -> None:
    """What the order knows of the customer is kept."""
    order = {"id": 1, "customer_id": "c-1", "customer_name": "Ann", "customer_email": "a@b.example"}

    await process(ctx, order)

    contact = await ctx.contacts.find_by_email("a@b.example")
    assert contact is not None
    assert (contact.external_id, contact.first_name) == ("c-1", "Ann")


async def test_customer_with_a_conversation_is_thanked_once(ctx: ConvoticContext) -> None:
    """The same order twice, even published twice, says thank you once."""
    contact = await ctx.contacts.create(external_id="c-1")
    conversation = await ctx.conversations.create(contact.id)

    await process(ctx, {"id": 7, "customer_id": "c-1"}, message_id="1")
    await process(ctx, {"id": 7, "customer_id": "c-1"}, message_id="1")
    await process(ctx, {"id": 7, "customer_id": "c-1"}, message_id="2")

    messages = (await ctx.messages.list(conversation.id)).items
    assert [message.text for message in messages] == [
        "Thank you for your order #7! We'll keep you updated."
    ]


async def test_orders_of_one_customer_may_run_at_once(ctx: ConvoticContext) -> None:
    """One contact comes into being and every order counts."""
    orders = [
        {"id": number, "customer_id": "c-1", "quantity": 2, "total": 0.1} for number in range(50)
    ]

    await asyncio.gather(*[process(ctx, order) for order in orders])

    (contact,) = await read_all(ctx)
    assert contact.totals == {"orders": 50, "units": 100, "amount": 5}


async def test_real_orders_add_up_though_many_come_twice(ctx: ConvoticContext) -> None:
    """A third of the real orders, every fourth delivered twice, in a crowd: exact to the cent."""
    orders = list(load_orders())[::3]
    deliveries = [*orders, *orders[::4]]
    crowd = asyncio.Semaphore(64)

    async def deliver(order: dict[str, Any]) -> None:
        async with crowd:
            await process(ctx, order)

    await asyncio.gather(*[deliver(order) for order in deliveries])

    contacts = await read_all(ctx)
    assert len(contacts) == len({order["customer_id"] for order in orders})
    assert all(contact.tags == {"has-order"} for contact in contacts)
    assert sum(contact.totals["orders"] for contact in contacts) == len(orders)
    assert sum(contact.totals["units"] for contact in contacts) == sum(
        order["quantity"] for order in orders
    )
    assert sum(contact.totals["amount"] for contact in contacts) == sum(
        Decimal(str(order["total"])) for order in orders
    )
