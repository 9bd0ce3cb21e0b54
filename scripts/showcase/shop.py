"""A small shop, to have something to show: most orders succeed, some fail for three reasons."""

# ruff: noqa: INP001, D101, D103, ARG001 - a module of handlers, which say what they do by their names

from __future__ import annotations

import asyncio
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage, WorkflowRun

module = ConvoticModule(name="shop", version="2.3.0")


class Line(BaseModel):
    sku: str
    quantity: int = 1


class Order(BaseModel):
    """An order of the web shop."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "A-1042",
                    "customer": "ada@example.com",
                    "placed_at": "2026-11-27T09:41:00Z",
                    "lines": [{"sku": "tea-green", "quantity": 2}],
                    "total": 23.8,
                }
            ]
        }
    )

    id: str
    customer: str
    placed_at: datetime
    lines: list[Line]
    total: float


class OutOfStock(Exception):
    pass


@module.worker("custom.orders.new", concurrency=8, max_retries=0, ack_deadline=20)
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """Reserve what was ordered and tell the customer.

    Safe to repeat: the reservation has the order's id.
    """
    order = message.data
    await asyncio.sleep(0.02)
    if order.lines[0].sku == "tea-white":
        raise OutOfStock(f"tea-white: 0 left, {order.lines[0].quantity} ordered")
    ctx.logger.info("Order processed", order_id=order.id)


@module.worker("custom.orders.new", name="search-index", concurrency=4)
async def index_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Make the order findable."""


@module.worker("custom.payments.captured", max_retries=0)
async def book_payment(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Book a payment to its order."""
    if message.data["amount"] > 900:  # noqa: PLR2004 - for want of a ledger
        raise ConnectionError("ledger.internal:5432 refused the connection")


@module.worker("custom.invoices.render", concurrency=2, ack_deadline=120)
async def render_invoice(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Render the invoice as PDF. Takes its time."""
    await asyncio.sleep(100)


@module.worker("custom.customers.changed", concurrency=4)
async def sync_customer(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Copy the customer to the CRM."""


@module.worker("custom.newsletter.send", max_retries=3)
async def send_newsletter(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Send one newsletter."""


async def reserve(run: WorkflowRun, ctx: ConvoticContext) -> dict[str, str]:
    return {"reservation": f"R-{run.input['order']}"}


async def charge(run: WorkflowRun, ctx: ConvoticContext) -> dict[str, object]:
    if run.input["order"].endswith("7"):
        raise ValueError("card declined: insufficient funds")
    return {"payment": "P-1", "amount": 23.8}


async def ship(run: WorkflowRun, ctx: ConvoticContext) -> dict[str, str]:
    if run.input["order"].endswith("3"):
        await asyncio.sleep(100)
    return {"parcel": "00340434161094042557"}


async def thank(run: WorkflowRun, ctx: ConvoticContext) -> None:
    pass


module.workflow("fulfil-order", steps=[reserve, charge, ship, thank], max_retries=0, concurrency=8)
