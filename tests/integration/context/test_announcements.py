"""``messages.send`` announces what was sent, together with the message or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from convotic_celery.context import (
    AsyncConversations,
    AsyncMessages,
    ConvoticContext,
    Message,
    Services,
    Store,
    SyncConvoticContext,
)
from convotic_celery.context.keys import Keys
from convotic_celery.context.scheduled import Announcements, ScheduledMessage
from convotic_celery.errors import ConversationNotFound
from tests.integration.context.conftest import DELIVERY, NoPublisher
from tests.integration.context.test_schedule import OvertakenDatabase, RepeatingDatabase, take


@pytest.fixture
def services(store: Store, key_prefix: str) -> Services:
    """Services that announce."""
    return Services(store, NoPublisher(), key_prefix=key_prefix, sent_messages_topic="sent")


async def open_conversation(ctx: ConvoticContext) -> str:
    """Return a conversation's id."""
    contact = await ctx.contacts.create()
    return (await ctx.conversations.create(contact.id)).id


def read(found: ScheduledMessage) -> Message:
    """Return what is announced."""
    assert found.message.topic == "sent"
    return Message.model_validate_json(found.message.data)


async def test_sent_message_is_announced(ctx: ConvoticContext, services: Services) -> None:
    """The message itself is the data, and the delayed publisher of this process is woken."""
    conversation_id = await open_conversation(ctx)

    sent = await ctx.messages.send(conversation_id, text='Grüße / "\n')

    (found,) = await take(services.async_schedule)
    assert read(found) == sent
    assert found.is_optional
    assert services.schedule_changed.is_set()


def test_plain_code_announces_too(sync_ctx: SyncConvoticContext, services: Services) -> None:
    """The same."""
    contact = sync_ctx.contacts.create()
    conversation = sync_ctx.conversations.create(contact.id)

    sent = sync_ctx.messages.send(conversation.id, text="Hello")

    (found,) = services.sync_schedule.take_due("a", limit=10).messages
    assert read(found) == sent


async def test_each_key_is_announced_once(ctx: ConvoticContext, services: Services) -> None:
    """A repeated call sends nothing, and says nothing."""
    conversation_id = await open_conversation(ctx)

    first = await ctx.messages.send(conversation_id, text="Hello", idempotency_key="k")
    await ctx.messages.send(conversation_id, text="Hello again", idempotency_key="k")

    assert [read(found) for found in await take(services.async_schedule)] == [first]


@pytest.mark.parametrize("key", [None, "k"])
async def test_lost_answer_announces_once(
    services: Services, store: Store, key_prefix: str, key: str | None
) -> None:
    """The client repeats the call."""
    database, keys = RepeatingDatabase(store), Keys(key_prefix)
    conversation_id = await open_conversation(services.async_context(DELIVERY))
    messages = AsyncMessages(database, keys, Announcements("sent", services.schedule_changed))

    await messages.send(conversation_id, text="Hello", idempotency_key=key)

    assert len(await take(services.async_schedule)) == 1


async def test_repeated_call_does_not_announce_again(
    services: Services, store: Store, key_prefix: str
) -> None:
    """Also if the announcement was published already."""
    conversation_id = await open_conversation(services.async_context(DELIVERY))
    database = OvertakenDatabase(store, services.async_schedule, settles=True)
    announcements = Announcements("sent", services.schedule_changed)

    await AsyncMessages(database, Keys(key_prefix), announcements).send(conversation_id, text="Hi")

    assert await services.async_schedule.next_due() is None


async def test_what_is_not_sent_is_not_announced(ctx: ConvoticContext, services: Services) -> None:
    """Neither a refused message, nor one that came from the contact."""
    conversation_id = await open_conversation(ctx)

    with pytest.raises(ConversationNotFound):
        await ctx.messages.send("none", text="Hello")
    await ctx.messages.receive(conversation_id, text="Hi")

    assert await take(services.async_schedule) == []


async def test_announcing_can_be_switched_off(store: Store, key_prefix: str) -> None:
    """Nothing is kept for it then."""
    services: Any = Services(store, NoPublisher(), key_prefix=key_prefix)
    ctx = services.async_context(DELIVERY)
    assert isinstance(ctx.conversations, AsyncConversations)

    await ctx.messages.send(await open_conversation(ctx), text="Hello")

    assert await services.async_schedule.next_due() is None
