"""A call whose answer was lost is repeated by the client; that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from convotic_celery.context import AsyncContacts, AsyncConversations, AsyncMessages, Store
from convotic_celery.context.database import AsyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.context.scripts import Script


class RepeatingDatabase(AsyncDatabase):
    """Runs every script twice, as if each first answer had been lost."""

    async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        await super().run(script, keys, *arguments)
        return await super().run(script, keys, *arguments)


@pytest.fixture
def database(store: Store) -> RepeatingDatabase:
    return RepeatingDatabase(store)


@pytest.fixture
def contacts(database: RepeatingDatabase, key_prefix: str) -> AsyncContacts:
    return AsyncContacts(database, Keys(key_prefix))


async def test_created_contact_is_no_other_contact(contacts: AsyncContacts) -> None:
    """The second attempt finds the external id taken, by itself."""
    contact = await contacts.create(external_id="c-1", email="a@example.com")

    assert (await contacts.find_by_external_id("c-1")) == contact
    assert await contacts.count() == 1


async def test_found_or_created_contact_is_created_once(contacts: AsyncContacts) -> None:
    """The second attempt finds what the first has created."""
    contact = await contacts.find_or_create(external_id="c-1", email="a@example.com")

    assert (await contacts.find_by_external_id("c-1")) == contact
    assert await contacts.count() == 1


@pytest.mark.parametrize("key", ["o-1", None])
async def test_amounts_are_added_once(contacts: AsyncContacts, key: str | None) -> None:
    """With and without an idempotency key, and the caller hears that they were added."""
    contact = await contacts.create()

    added = await contacts.increment(contact.id, {"amount": Decimal("0.1")}, idempotency_key=key)

    assert added
    assert (await contacts.get(contact.id)).totals == {"amount": Decimal("0.1")}


async def test_update_is_made_once(contacts: AsyncContacts) -> None:
    """The second attempt finds its own external id and address."""
    contact = await contacts.create(external_id="old", email="old@example.com")

    updated = await contacts.update(contact.id, external_id="new", email="new@example.com")

    assert (updated.external_id, updated.email) == ("new", "new@example.com")
    assert await contacts.find_by_external_id("old") is None
    assert await contacts.find_by_email("new@example.com") == updated


async def test_message_without_key_is_sent_once(
    contacts: AsyncContacts, database: RepeatingDatabase, key_prefix: str
) -> None:
    """So are the conversation and its closing."""
    conversations = AsyncConversations(database, Keys(key_prefix))
    messages = AsyncMessages(database, Keys(key_prefix))
    contact = await contacts.create()

    conversation = await conversations.create(contact.id)
    message = await messages.send(conversation.id, text="Hello")
    closed = await conversations.close(conversation.id)

    assert (await messages.list(conversation.id)).items == (message,)
    assert (await conversations.list_by_contact_id(contact.id)).items == (closed,)
