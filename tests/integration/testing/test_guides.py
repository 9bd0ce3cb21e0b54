"""What the pages' code does when it is called: each function of each block."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from convotic_celery import ConvoticContext, ConvoticModule, ServiceNotProvided, WorkerMessage
from convotic_celery.routes import create_asgi_app
from convotic_celery.testing import AppUnderTest, convotic_app
from tests.unit.test_guides import run_blocks


def outcomes(app: AppUnderTest) -> dict[str, list[str]]:
    """Return what became of each handler's deliveries, by topic."""
    found: dict[str, list[str]] = {}
    for run in app.runs:
        found.setdefault(run.handler.rpartition(".")[0], []).append(run.outcome)
    return found


async def test_publishing() -> None:
    """From plain functions and coroutines, many, to one handler, later, and what was sent."""
    _, scope = run_blocks("publishing.md")
    others = ["custom.invoices.new", "custom.carts.remind"]
    async with convotic_app(scope["module"], topics=others) as app:
        scope["place_order"]({"id": 1})
        await scope["place_order_async"]({"id": 2})
        assert len(scope["place_orders"]([{"id": 3}, {"id": 4}])) == 2
        scope["process_again"]({"id": 1})
        await scope["process_again_async"]({"id": 2})
        await app.publish("custom.carts.left", data={"cart": "kept"})
        await app.publish("custom.carts.left", data={"cart": "sold"})
        await app.run_due()
        await app.publish("custom.carts.bought", data={"cart": "sold"})
        contact = await app.ctx.contacts.create(external_id="c-1")
        conversation = await app.ctx.conversations.create(contact.id)
        await app.ctx.messages.send(conversation.id, text="Thank you!")
        await app.drain()

        assert outcomes(app) == {
            "custom.orders.new": ["succeeded"] * 6,
            "custom.carts.left": ["succeeded"] * 2,
            "custom.carts.bought": ["succeeded"],
            "messages.sent": ["succeeded"],
        }
        reminded = [each.data for each in app.published if each.topic == "custom.carts.remind"]
        assert reminded == [{"cart": "kept"}]


async def test_idempotency() -> None:
    """One invoice is sent once."""
    _, scope = run_blocks("idempotency.md")
    async with convotic_app(scope["module"]) as app:
        for _ in range(2):
            await app.publish("custom.invoices.new", data={"id": "i-1"})
        await app.drain()

        assert outcomes(app) == {"custom.invoices.new": ["succeeded", "duplicate"]}


async def test_workflows() -> None:
    """Both run to their ends: steps that are functions, and steps that are canvas."""
    _, scope = run_blocks("workflows.md")
    async with convotic_app(scope["module"], topics=["custom.orders.shipped"]) as app:
        await app.publish("custom.orders.new", data={"id": 7})
        packed = await app.ctx.workflows.start("pack-order", {"id": 8})
        await app.drain()

        fulfilled = await app.ctx.workflows.get("order-7")
        assert (fulfilled.status, fulfilled.results["charge"]) == ("completed", "paid")
        run = await app.ctx.workflows.get(packed.id)
        assert run.status == "completed"
        assert run.results["labels"] == ["en: order 8 is packed", "de: order 8 is packed"]


async def test_routes() -> None:
    """An order is queued and shown; who has no token is asked for one."""
    _, scope = run_blocks("routes.md")
    async with convotic_app(scope["module"], topics=["custom.orders.new"]) as app:
        transport = httpx.ASGITransport(create_asgi_app(app=app.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            refused = await client.post("/orders", json={"id": 1, "customer_id": "c-1"})
            client.headers["authorization"] = "Bearer secret"
            accepted = await client.post("/orders", json={"id": 1, "customer_id": "c-1"})
            wrong = await client.post("/orders", json={"id": 1})
            missing = await client.get("/orders/1")
            await app.ctx.storage.set("order:1", scope["Order"](id=1, customer_id="c-1"))
            shown = await client.get("/orders/1")

        assert [each.status_code for each in (refused, accepted, wrong, missing, shown)] == [
            401, 202, 422, 404, 200,
        ]  # fmt: skip
        assert accepted.json() == {"message": "Order queued for processing"}
        assert wrong.json()["errors"] == [{"pointer": "#/customer_id", "detail": "Field required"}]
        assert shown.json() == {"order": {"id": 1, "customer_id": "c-1"}, "paid": False}
        assert [each.attributes for each in app.published] == [{"source": "api"}]


async def test_modules() -> None:
    """Every handler of the page runs, with its services, middleware and hooks."""
    _, scope = run_blocks("modules.md")
    modules: list[ConvoticModule] = [scope["module"], scope["archive"], scope["shipping"]]
    order = {"id": 1, "customer_id": "c-1"}
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "created"}
    others = ["custom.alerts.new"]
    async with convotic_app(*modules, services=scope["plug_in"], topics=others) as app:
        for topic in ("new", "cancelled", "packed", "paid"):
            await app.publish(f"custom.orders.{topic}", data=order)
        await app.publish("custom.orders.events", data=order, attributes=event)
        await app.publish("custom.carts.changed", data=order)
        await app.publish("custom.invoices.wanted", data=order)
        for state in ("pending", "unknown", "test"):
            await app.publish("custom.payments.new", data={"state": state})
        await app.publish("custom.orders.packed", data={"no": "order"})
        await app.drain()

        assert outcomes(app) == {
            "custom.orders.new": ["succeeded"] * 2,
            "custom.orders.new.orders": ["succeeded"],
            "custom.orders.cancelled": ["succeeded"],
            "custom.orders.packed": ["succeeded", "dead_lettered"],
            "custom.orders.paid": ["succeeded"],
            "custom.orders.events": ["succeeded"],
            "custom.carts.changed": ["succeeded"],
            "custom.invoices.wanted": ["succeeded"],
            "custom.payments.new": [
                *("retried", "dead_lettered", "dropped"),
                *["retried"] * 4,
                "dead_lettered",
            ],
        }
        await scope["add_visit"](app.ctx)
        await scope["with_lock"](app.ctx, "me")
        assert await app.ctx.storage.get("visits", int) == 1
        assert await app.ctx.storage.get("lock") is None
        found = await app.ctx.contacts.find_by_external_id("c-1")
        assert found is not None
        assert [*found.totals] == ["paid"]
        assert [each.topic for each in app.published][-1] == "custom.alerts.new"

    assert isinstance(scope["message"], WorkerMessage)


async def test_web_frameworks() -> None:
    """FastAPI's endpoint publishes into the test."""
    _, scope = run_blocks("web-frameworks.md")
    module = ConvoticModule(name="shop", version="1.0.0")

    @module.worker("custom.orders.new")
    async def process_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
        """Do nothing."""

    await scope["test_an_order_is_queued"](module)


async def test_a_service_that_nobody_provides_is_named() -> None:
    """The page's handler without the page's function."""
    _, scope = run_blocks("modules.md")
    async with convotic_app(
        scope["module"], handler_options={"custom.invoices.wanted": {"max_retries": 0}}
    ) as app:
        await app.publish("custom.invoices.wanted", data={"id": 1, "customer_id": "c-1"})
        await app.drain()

        error: Any = app.dead_letters[0].error
    with pytest.raises(ServiceNotProvided, match="Billing"):
        raise error
