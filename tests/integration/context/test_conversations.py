"""Conversations and messages on a real Valkey."""

from __future__ import annotations

import asyncio

import pytest

from convotic_celery.context import ConvoticContext
from convotic_celery.errors import ContactNotFound, ConversationNotFound, InvalidField


async def test_newest_open_conversation_is_found(ctx: ConvoticContext) -> None:
    """Closed conversations are not; None if there is none."""
    contact = await ctx.contacts.create()
    assert await ctx.conversations.find_by_contact_id(contact.id) is None
    conversation = await ctx.conversations.create(contact.id, channel="email")

    assert await ctx.conversations.find_by_contact_id(contact.id) == conversation
    closed = await ctx.conversations.close(conversation.id)

    assert closed.status == "closed"
    assert await ctx.conversations.find_by_contact_id(contact.id) is None
    assert await ctx.conversations.get(conversation.id) == closed
    assert (await ctx.conversations.list_by_contact_id(contact.id)).items == (closed,)


async def test_conversations_come_in_pages(ctx: ConvoticContext) -> None:
    """The newest first, each once; closed ones too, and those of other contacts not."""
    contact, other = await ctx.contacts.create(), await ctx.contacts.create()
    opened = [await ctx.conversations.create(contact.id) for _ in range(5)]
    await ctx.conversations.create(other.id)
    opened[0] = await ctx.conversations.close(opened[0].id)

    first = await ctx.conversations.list_by_contact_id(contact.id, limit=3)
    second = await ctx.conversations.list_by_contact_id(
        contact.id, limit=3, cursor=first.next_cursor
    )

    assert [*first.items, *second.items] == opened[::-1]
    assert (len(first.items), second.next_cursor) == (3, None)
    assert all(each.created_at.tzinfo is not None for each in first.items)


async def test_conversation_needs_a_contact(ctx: ConvoticContext) -> None:
    """A conversation with nobody is refused."""
    with pytest.raises(ContactNotFound):
        await ctx.conversations.create("nobody")


async def test_unknown_conversation_is_not_found(ctx: ConvoticContext) -> None:
    """All that name a conversation say so."""
    with pytest.raises(ConversationNotFound):
        await ctx.conversations.get("none")
    with pytest.raises(ConversationNotFound):
        await ctx.conversations.close("none")
    with pytest.raises(ConversationNotFound):
        await ctx.messages.send("none", text="Hello")


async def test_message_is_sent_once_for_each_key(ctx: ConvoticContext) -> None:
    """Racing calls with one key return the one message."""
    contact = await ctx.contacts.create()
    conversation = await ctx.conversations.create(contact.id)

    sent = await asyncio.gather(
        *[
            ctx.messages.send(conversation.id, text=f"Try {number}", idempotency_key="o-1")
            for number in range(20)
        ]
    )

    assert len({message.id for message in sent}) == 1
    assert (await ctx.messages.list(conversation.id)).items == (sent[0],)


async def test_messages_without_key_are_all_sent(ctx: ConvoticContext) -> None:
    """Two equal texts are two messages."""
    contact = await ctx.contacts.create()
    conversation = await ctx.conversations.create(contact.id)

    await ctx.messages.send(conversation.id, text="Hello")
    await ctx.messages.send(conversation.id, {"text": "Hello"})
    await ctx.messages.receive(conversation.id, text="Hi")

    page = await ctx.messages.list(conversation.id)
    assert sorted((message.direction, message.text) for message in page.items) == [
        ("inbound", "Hi"),
        ("outbound", "Hello"),
        ("outbound", "Hello"),
    ]


async def test_mapping_form_takes_the_key_too(ctx: ConvoticContext) -> None:
    """The second argument may carry the idempotency key, in either spelling."""
    contact = await ctx.contacts.create()
    conversation = await ctx.conversations.create(contact.id)

    first = await ctx.messages.send(conversation.id, {"text": "Hello", "idempotencyKey": "k"})
    second = await ctx.messages.send(conversation.id, {"text": "Hello", "idempotency_key": "k"})

    assert first == second


async def test_message_needs_a_text(ctx: ConvoticContext) -> None:
    """Nothing to say is refused, and so is an unknown field."""
    contact = await ctx.contacts.create()
    conversation = await ctx.conversations.create(contact.id)

    with pytest.raises(InvalidField, match="text"):
        await ctx.messages.send(conversation.id)
    with pytest.raises(InvalidField, match="not body"):
        await ctx.messages.send(conversation.id, {"body": "Hello"})


async def test_messages_come_in_pages(ctx: ConvoticContext) -> None:
    """Following the cursor gives every message once."""
    contact = await ctx.contacts.create()
    conversation = await ctx.conversations.create(contact.id)
    sent = [await ctx.messages.send(conversation.id, text=str(number)) for number in range(5)]

    first = await ctx.messages.list(conversation.id, limit=3)
    second = await ctx.messages.list(conversation.id, limit=3, cursor=first.next_cursor)

    assert {m.id for m in first.items} | {m.id for m in second.items} == {m.id for m in sent}
    assert second.next_cursor is None
