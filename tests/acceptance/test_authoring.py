"""An author's module in real processes: a route publishes, workers store, a route shows it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from convotic_celery.cli.demo.child import Child
from tests.acceptance.stage import Stage
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

MODULE = """
from typing import Any

from own_services import Billing
from pydantic import BaseModel

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    Problem,
    RouteRequest,
    SyncConvoticContext,
    WorkerMessage,
    pubsub,
)

module = ConvoticModule(name="shop", version="1.0.0")


class Order(BaseModel):
    id: int


@module.route("POST", "/orders")
async def create(request: RouteRequest[Order], ctx: ConvoticContext) -> dict[str, Any]:
    message_id = await ctx.pubsub.publish("custom.orders.new", data=request.body)
    return {"status": 202, "body": {"message_id": message_id}}


@module.route("GET", "/orders/{order_id}")
def show(request: RouteRequest, ctx: SyncConvoticContext) -> Any:
    found = ctx.storage.get(f"order:{request.path_params['order_id']}")
    if found is None:
        raise Problem(404, "not yet")
    return {"status": 200, "body": found}


@module.worker("custom.orders.new", cloud_events="accept", accept_gzip=True)
async def process(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    kind = message.event.type if message.event else None
    invoice = ctx.service(Billing).invoice(message.data.id)
    pending = {"id": message.data.id, "event": kind, "invoice": invoice}
    await pubsub.apublish("custom.orders.done", data=pending)


@module.worker("custom.orders.done", concurrency=2)
def finish(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
    ctx.storage.set_if_absent(f"order:{message.data['id']}", message.data, ttl=600)
"""

SERVICES = """
class Billing:
    def invoice(self, order_id):
        return f"invoice-{order_id}"


def plug_in(services):
    services.provide(Billing, Billing())
"""


@contextmanager
def routes(stage: Stage) -> Iterator[httpx.Client]:
    """Run ``convotic routes`` for the block, and give a client of it."""
    port = free_port()
    log = stage.folder / "routes.log"
    child = Child(
        ["convotic_celery.cli", "routes", "--port", str(port)],
        environment=os.environ | stage.environment,
        log=log,
        cwd=stage.folder,
    )
    with child, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:

        def answers() -> bool:
            assert child.is_running, log.read_text()
            try:
                return client.get("/openapi.json").is_success
            except httpx.TransportError:
                return False

        wait_until(answers, what="the routes answer")
        yield client


@pytest.fixture
def authors_stage(embedded_stage: Stage) -> Stage:
    """A stage whose module and services are those above."""
    (embedded_stage.folder / "modules" / "shop.py").write_text(MODULE)
    (embedded_stage.folder / "own_services.py").write_text(SERVICES)
    embedded_stage.environment["CONVOTIC_SERVICES"] = "own_services:plug_in"
    return embedded_stage


@pytest.mark.parametrize(
    "pool", [[], ["--pool", "prefork", "--concurrency", "2"]], ids=["default", "prefork"]
)
def test_an_order_comes_by_http_and_is_shown_by_http(authors_stage: Stage, pool: list[str]) -> None:
    """Through route, two handlers, the storage and a service of the team's own, in any pool."""
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "order.created",
        "data": {"id": 2},
    }
    with routes(authors_stage) as client:
        accepted = client.post("/orders", json={"id": 1})  # before any worker has run
        with authors_stage.worker(*pool):
            authors_stage.publish(
                gzip.compress(json.dumps(event).encode()),
                **{"content-type": "application/cloudevents+json", "content-encoding": "gzip"},
            )

            def shown() -> bool:
                return all(client.get(f"/orders/{n}").is_success for n in (1, 2))

            wait_until(shown, what="both orders are shown")
        orders = [client.get(f"/orders/{n}").json() for n in (1, 2)]

    assert accepted.status_code == 202
    assert orders == [
        {"id": 1, "event": None, "invoice": "invoice-1"},
        {"id": 2, "event": "order.created", "invoice": "invoice-2"},
    ]
