"""``process_order.delay(order)``: a message for one handler of a topic, as its module writes it."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    PublishRefused,
    SyncConvoticContext,
    WorkerMessage,
    WorkerMiddleware,
    pubsub,
)
from convotic_celery.errors import HandlerNotLoaded, HandlerSignatureError
from convotic_celery.testing import convotic_app


class Order(BaseModel):
    id: int


module = ConvoticModule(name="shop", version="1")


@module.worker("custom.orders.new")
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    await ctx.storage.set("attributes", dict(message.attributes))


@module.worker("custom.orders.new", name="audit")
def audit_order(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...


@module.worker("custom.orders.imported")
async def on_import(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    await process_order.adelay(message.data, attributes={"source": "import"})


async def test_a_call_reaches_that_handler_only() -> None:
    """From plain code and from coroutines; each prints the id of the message."""
    async with convotic_app(module) as app:
        first = process_order.delay(Order(id=1), attributes={"source": "test"}, ordering_key="k")
        second = await audit_order.adelay(Order(id=2))
        runs = await app.drain()

        assert await app.ctx.storage.get("attributes") == {"source": "test"}
    run_here = [run for run in runs if run.outcome != "other-target"]
    assert [(run.handler, run.message_id, run.outcome) for run in run_here] == [
        ("custom.orders.new.shop", first, "succeeded"),
        ("custom.orders.new.shop.audit", second, "succeeded"),
    ]


async def test_a_handler_calls_another() -> None:
    """With the model itself as data."""
    async with convotic_app(module) as app:
        await app.publish("custom.orders.imported", data={"id": 7})
        await app.drain()

        assert await app.ctx.storage.get("attributes") == {"source": "import"}
        assert [each.topic for each in app.published][1:] == ["custom.orders.new"]


async def test_the_facade_publishes_into_the_test() -> None:
    """What a handler's own code publishes with ``pubsub`` is seen, and starts no server."""
    async with convotic_app(module) as app:
        await pubsub.apublish("custom.orders.new", data={"id": 1})
        pubsub.publish("custom.orders.new", data={"id": 2})

        assert [each.data for each in app.published] == [{"id": 1}, {"id": 2}]
        assert [run.outcome for run in await app.drain()] == ["succeeded"] * 4


async def test_a_call_is_checked_as_a_publish_is() -> None:
    """And a handler whose module is not loaded is named, with those that are."""
    other = ConvoticModule(name="other", version="1")

    @other.worker("custom.orders.new")
    async def forgotten(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...

    async with convotic_app(module):
        with pytest.raises(PublishRefused, match="reserved"):
            process_order.delay(Order(id=1), attributes={"convotic-target": "x"})
        with pytest.raises(HandlerNotLoaded, match=r"new\.other is not among .*new\.shop"):
            await forgotten.adelay(Order(id=1))


def test_the_function_stays_itself() -> None:
    """Only what takes no attributes is wrapped; a Celery task is refused."""

    class Handlers:
        async def ship(self, message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...

    def plain(message: WorkerMessage[Order], ctx: SyncConvoticContext) -> None: ...

    shop: Any = ConvoticModule(name="shop", version="1")
    assert shop.worker("custom.a")(plain) is plain
    bound = shop.worker("custom.b")(Handlers().ship)
    assert isinstance(bound, functools.partial)
    assert callable(bound.delay)  # type: ignore[attr-defined]  # given to it
    with pytest.raises(HandlerSignatureError, match="is a Celery task, but a handler is a"):
        shop.worker("custom.c")(Celery(set_as_current=False).task(shared=False)(plain))


def forgets(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that was written for plain functions."""

    @functools.wraps(function)
    def wrapper(message: Any, ctx: Any) -> Any:
        return function(message, ctx)

    return wrapper


class Nothing(WorkerMiddleware):
    """Does nothing, around the handler."""


@pytest.mark.parametrize("middleware", [(), (Nothing(),)])
async def test_work_that_nobody_awaits_is_no_success(middleware: tuple[Nothing, ...]) -> None:
    """The message is retried and dead-lettered, never acknowledged as done."""
    shop = ConvoticModule(name="shop", version="1", middleware=middleware)

    @shop.worker("custom.orders.new", max_retries=1)
    @forgets
    async def process(message: Any, ctx: Any) -> None:
        raise AssertionError("it was run")

    async with convotic_app(shop) as app:
        await app.publish("custom.orders.new", data={"id": 1})
        runs = await app.drain()

    assert [run.outcome for run in runs] == ["retried", "dead_lettered"]
    assert "never awaited" in str(app.dead_letters[0].error)
