"""The public API as type checkers see it: mypy and basedpyright check this file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_type

from pydantic import BaseModel

from convotic_celery import (
    ConvoticContext,
    ConvoticModule,
    Sdk,
    SyncConvoticContext,
    WorkerMessage,
    WorkerOptions,
)
from convotic_celery.context import Contact, Conversation, Message, Page

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp


class Order(BaseModel):
    id: int


module = ConvoticModule(name="typed", version="1.0.0")


@module.worker("custom.orders.new", max_retries=3, ack_deadline=60, concurrency=10)
async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """The seed's handler, with a payload type."""
    assert_type(message.data, Order)
    assert_type(message.id, str)
    assert_type(message.attributes, Mapping[str, str])
    assert_type(message.published_at, datetime)
    assert_type(ctx.attempt, int)
    contact = await ctx.contacts.find_by_external_id("c-1")
    assert_type(contact, Contact | None)
    if contact is None:
        contact = await ctx.contacts.create(external_id="c-1", first_name="Ada")
    assert_type(contact, Contact)
    assert_type(await ctx.contacts.add_tag(contact.id, "has-order"), bool)
    assert_type(await ctx.contacts.list(), Page[Contact])
    conversation = await ctx.conversations.find_by_contact_id(contact.id)
    assert_type(conversation, Conversation | None)
    if conversation is not None:
        assert_type(await ctx.messages.send(conversation.id, text="Thank you!"), Message)
    published = await ctx.pubsub.publish("custom.orders.done", data={"id": message.data.id})
    assert_type(published, str)
    ctx.logger.info("Processed", order_id=message.data.id)


@module.worker("custom.orders.plain")
def process_plainly(message: WorkerMessage, ctx: SyncConvoticContext) -> None:
    """A plain handler: the same names, called instead of awaited."""
    assert_type(message.data, Any)
    assert_type(ctx.contacts.find_by_external_id("c-1"), Contact | None)
    assert_type(ctx.pubsub.publish("custom.orders.done", data=1), str)


def register(sdk: Sdk) -> None:
    """The seed's other form."""
    sdk.register_worker_handler(
        topic="custom.orders.register",
        options=WorkerOptions(max_retries=3, ack_deadline=60),
        handler=process_order,
    )


def typed_app(app: ConvoticApp) -> None:
    assert_type(app.total_concurrency, int)


def test_a_decorated_handler_keeps_its_type() -> None:
    """The decorator gives back the function itself."""
    definitions = {handler.queue: handler for handler in module.collect_handlers()}

    assert definitions["custom.orders.new.typed"].handler is process_order
    assert definitions["custom.orders.new.typed"].payload_type is Order
    assert definitions["custom.orders.plain.typed"].handler is process_plainly


def test_the_register_form_registers() -> None:
    """`ConvoticModule(register=...)` takes a function of `Sdk`."""
    (handler,) = ConvoticModule("typed", "1.0.0", register).collect_handlers()

    assert handler.topic == "custom.orders.register"
