"""Routes, storage and own services as type checkers see them: mypy and basedpyright check this."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel, JsonValue

from convotic_celery import (
    CloudEvent,
    ConvoticContext,
    ConvoticModule,
    Page,
    RouteRequest,
    RouteResponse,
    Sdk,
    Services,
    StorageItem,
    SyncConvoticContext,
    WorkerMessage,
    pubsub,
)
from convotic_celery.context import (
    AsyncContacts,
    AsyncContactService,
    AsyncConversations,
    AsyncConversationService,
    AsyncMessages,
    AsyncMessageService,
    AsyncStorage,
    AsyncStorageService,
    SyncContacts,
    SyncContactService,
    SyncStorage,
    SyncStorageService,
)


class Order(BaseModel):
    id: int


class Billing:
    """A service of the team's own."""


module = ConvoticModule(name="typed", version="1.0.0")


@module.route("POST", "/orders", status=202)
async def create_order(request: RouteRequest[Order], ctx: ConvoticContext) -> RouteResponse[Order]:
    """The body is the model, and so is what is stored."""
    assert_type(request.body, Order)
    assert_type(await ctx.storage.get("k"), JsonValue)
    assert_type(await ctx.storage.get("k", Order), Order | None)
    assert_type(await ctx.storage.get("k", list[Order]), list[Order] | None)
    assert_type(await ctx.storage.get_bytes("k"), bytes | None)
    assert_type(await ctx.storage.set_if_absent("k", request.body, ttl=60), bool)
    assert_type(await ctx.storage.list("k"), Page[StorageItem])
    assert_type(ctx.service(Billing), Billing)
    assert_type(await ctx.pubsub.publish_many("t", [{"data": 1}]), list[str])
    assert_type(await pubsub.apublish("t", data=1), str)
    return RouteResponse(request.body)


@module.route("GET", "/orders")
def list_orders(request: RouteRequest, ctx: SyncConvoticContext) -> dict[str, Any]:
    """A plain handler: called, not awaited."""
    assert_type(request.body, Any)
    assert_type(ctx.storage.get("k", Order), Order | None)
    assert_type(pubsub.publish_many("t", []), list[str])
    return {"status": 200}


@module.worker("custom.orders.new", cloud_events="accept", accept_gzip=True)
async def on_event(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """An event beside the data."""
    assert_type(message.event, CloudEvent | None)
    assert_type(ctx.service(Billing), Billing)


def register(sdk: Sdk) -> None:
    """The seed's form."""
    sdk.register_route(method="POST", path="/orders", handler=create_order)


def plug_in(services: Services) -> None:
    """What the protocols ask for is what our services do."""
    contacts: AsyncContactService = services.async_contacts
    services.async_contacts = contacts
    services.provide(Billing, Billing())


def fits(
    contacts: AsyncContacts,
    conversations: AsyncConversations,
    messages: AsyncMessages,
    storage: AsyncStorage,
) -> tuple[AsyncContactService, AsyncConversationService, AsyncMessageService, AsyncStorageService]:
    return contacts, conversations, messages, storage


def fits_plain(
    contacts: SyncContacts, storage: SyncStorage
) -> tuple[SyncContactService, SyncStorageService]:
    return contacts, storage


def test_a_decorated_route_keeps_its_type() -> None:
    """The decorator gives back the function itself, and the types are read from it."""
    first, second = module.collect().routes

    assert first.handler is create_order
    assert first.body_type is Order
    assert first.return_type == RouteResponse[Order]
    assert second.body_type is None
