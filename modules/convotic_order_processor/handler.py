"""Adds each new order to its customer's contact, and is safe to run twice.

Pub/Sub delivers at least once, and orders of one customer may run at the same time. So each step
below can be repeated and run concurrently: everything that counts is keyed by the order's id.
"""

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    RouteRequest,
    WorkerMessage,
)
from convotic_order_processor.models import Order, OrderQueued

__all__ = ["create_order", "module", "process_order"]

TOPIC = "custom.orders.new"

#: The names of the totals that the module keeps in each contact.
ORDERS, UNITS, AMOUNT = "orders", "units", "amount"

module = ConvoticModule(name="order-processor", version="1.0.0")


@module.route("POST", "/orders", status=202)
async def create_order(request: RouteRequest[Order], ctx: ConvoticContext) -> OrderQueued:
    """Accept an order: validate and publish it; a worker processes it.

    Responds after Pub/Sub has confirmed the publish, so an accepted order is not lost.
    """
    message_id = await ctx.pubsub.publish(TOPIC, data=request.body, attributes={"source": "api"})
    return OrderQueued(message_id=message_id)


@module.worker(TOPIC, max_retries=5, ack_deadline=30, concurrency=16)
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """Find or create the contact, tag it, count the order once, and say thank you once."""
    order = message.data
    ctx.logger.info("Processing order", order_id=order.id)

    contact = await ctx.contacts.find_or_create(
        external_id=order.customer_id,
        first_name=order.customer_name,
        email=order.customer_email or None,
        tags=["has-order"],
    )
    if "has-order" not in contact.tags:
        await ctx.contacts.add_tag(contact.id, "has-order")

    await ctx.contacts.increment(
        contact.id,
        {ORDERS: 1, UNITS: order.quantity, AMOUNT: order.total},
        idempotency_key=f"order:{order.id}",
    )

    conversation = await ctx.conversations.find_by_contact_id(contact.id)
    if conversation:
        await ctx.messages.send(
            conversation.id,
            text=f"Thank you for your order #{order.id}! We'll keep you updated.",
            idempotency_key=f"order:{order.id}",
        )
