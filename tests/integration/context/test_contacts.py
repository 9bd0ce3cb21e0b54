"""Contacts on a real Valkey: identity, indexes, tags, pages."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from convotic_celery.context import ConvoticContext, Store, SyncConvoticContext
from convotic_celery.errors import ContactExists, ContactNotFound, InvalidField


async def test_created_contact_reads_back_equal(ctx: ConvoticContext) -> None:
    """What create returns is what get finds."""
    created = await ctx.contacts.create(
        external_id="c-1",
        first_name="Ann",
        last_name="Lee",
        email="Ann@Example.com",
        phone="+49 30 1",
        tags=["vip"],
        attributes={"plan": "gold", "seats": [1, 2]},
    )

    found = await ctx.contacts.get(created.id)

    assert found == created
    assert found.tags == {"vip"}
    assert found.attributes == {"plan": "gold", "seats": [1, 2]}
    assert found.created_at.tzinfo is not None


async def test_contact_may_know_nothing_but_its_id(ctx: ConvoticContext) -> None:
    """Absent and None fields are None."""
    contact = await ctx.contacts.create(external_id="c-1", first_name=None, email=None)

    found = await ctx.contacts.get(contact.id)

    assert (found.first_name, found.email, found.phone) == (None, None, None)


async def test_taken_external_id_names_its_contact(ctx: ConvoticContext) -> None:
    """ContactExists carries the id of the contact that is there."""
    first = await ctx.contacts.create(external_id="c-1")

    with pytest.raises(ContactExists) as refused:
        await ctx.contacts.create(external_id="c-1", first_name="Other")

    assert refused.value.contact_id == first.id
    assert await ctx.contacts.count() == 1


async def test_many_creators_make_one_contact(ctx: ConvoticContext) -> None:
    """Of many tasks that create one external id, one succeeds and all agree on the contact."""

    async def create() -> str:
        try:
            return (await ctx.contacts.create(external_id="c-1")).id
        except ContactExists as exists:
            return exists.contact_id

    ids = await asyncio.gather(*[create() for _ in range(50)])

    assert len(set(ids)) == 1
    assert await ctx.contacts.count() == 1


async def test_found_or_created_is_one_contact(ctx: ConvoticContext) -> None:
    """Many tasks at once create one and return it whole; later ones change nothing of it."""
    contacts = await asyncio.gather(
        *[
            ctx.contacts.find_or_create(
                external_id="c-1", first_name="Ann", email="Ann@Example.com", tags=["vip"]
            )
            for _ in range(50)
        ]
    )
    later = await ctx.contacts.find_or_create(external_id="c-1", first_name="Other", tags=["new"])

    assert {contact.model_dump_json() for contact in contacts} == {later.model_dump_json()}
    assert (later.first_name, later.tags) == ("Ann", frozenset({"vip"}))
    assert await ctx.contacts.get(later.id) == later
    assert await ctx.contacts.find_by_email("ann@example.com") == later
    assert [each.id for each in (await ctx.contacts.list()).items] == [later.id]


@pytest.mark.parametrize("given", [{}, {"external_id": None}, {"external_id": ""}])
async def test_to_be_found_or_created_takes_an_external_id(
    ctx: ConvoticContext, given: dict[str, Any]
) -> None:
    """Without one nothing could be found, and each call would create a contact."""
    with pytest.raises(InvalidField, match="external_id"):
        await ctx.contacts.find_or_create(first_name="Ann", **given)

    assert await ctx.contacts.count() == 0


async def test_unknown_contact_is_not_found(ctx: ConvoticContext) -> None:
    """Get raises, the finders return None."""
    with pytest.raises(ContactNotFound):
        await ctx.contacts.get("nobody")
    assert await ctx.contacts.find_by_external_id("nobody") is None
    assert await ctx.contacts.find_by_email("nobody@example.com") is None


async def test_email_is_found_in_any_case_and_the_oldest_wins(ctx: ConvoticContext) -> None:
    """Two contacts may share an address; the first one is found."""
    first = await ctx.contacts.create(email="ann@example.com")
    await ctx.contacts.create(email="ANN@example.com")

    found = await ctx.contacts.find_by_email(" Ann@Example.COM ")

    assert found == first


async def test_update_changes_only_what_is_given(ctx: ConvoticContext) -> None:
    """Other fields, tags, attributes and totals stay."""
    contact = await ctx.contacts.create(
        external_id="c-1", first_name="Ann", tags=["vip"], attributes={"a": 1, "b": 2}
    )
    await ctx.contacts.increment(contact.id, {"orders": 1})

    updated = await ctx.contacts.update(contact.id, last_name="Lee", attributes={"b": 3})

    assert (updated.first_name, updated.last_name) == ("Ann", "Lee")
    assert updated.tags == {"vip"}
    assert updated.attributes == {"a": 1, "b": 3}
    assert updated.totals == {"orders": 1}
    assert updated.updated_at > contact.updated_at
    assert updated == await ctx.contacts.get(contact.id)


async def test_update_moves_the_indexes(ctx: ConvoticContext) -> None:
    """Old external id and address find nothing any more, the new ones do."""
    contact = await ctx.contacts.create(external_id="old", email="old@example.com")

    await ctx.contacts.update(contact.id, external_id="new", email="new@example.com")

    assert await ctx.contacts.find_by_external_id("old") is None
    assert await ctx.contacts.find_by_email("old@example.com") is None
    by_id = await ctx.contacts.find_by_external_id("new")
    by_email = await ctx.contacts.find_by_email("new@example.com")
    assert by_id is not None
    assert by_email is not None
    assert by_id.id == by_email.id == contact.id


async def test_update_with_none_removes_value_and_index(ctx: ConvoticContext) -> None:
    """The freed external id can be given to another contact."""
    contact = await ctx.contacts.create(external_id="c-1", email="a@example.com")

    updated = await ctx.contacts.update(contact.id, external_id=None, email=None)

    assert (updated.external_id, updated.email) == (None, None)
    assert await ctx.contacts.find_by_email("a@example.com") is None
    assert (await ctx.contacts.create(external_id="c-1")).id != contact.id


async def test_update_to_a_taken_external_id_changes_nothing(ctx: ConvoticContext) -> None:
    """The refused update leaves all fields as they were."""
    first = await ctx.contacts.create(external_id="c-1")
    second = await ctx.contacts.create(external_id="c-2", first_name="Bob")

    with pytest.raises(ContactExists) as refused:
        await ctx.contacts.update(second.id, external_id="c-1", first_name="Eve")

    assert refused.value.contact_id == first.id
    assert await ctx.contacts.get(second.id) == second


async def test_update_of_unknown_contact_is_refused(ctx: ConvoticContext) -> None:
    """No half contact comes into being."""
    with pytest.raises(ContactNotFound):
        await ctx.contacts.update("nobody", first_name="Eve")
    assert await ctx.contacts.count() == 0


async def test_tags_are_a_set(ctx: ConvoticContext) -> None:
    """Adding and removing say whether something changed."""
    contact = await ctx.contacts.create()

    assert await ctx.contacts.add_tag(contact.id, "has-order")
    assert not await ctx.contacts.add_tag(contact.id, "has-order")
    assert (await ctx.contacts.get(contact.id)).tags == {"has-order"}
    assert await ctx.contacts.remove_tag(contact.id, "has-order")
    assert not await ctx.contacts.remove_tag(contact.id, "has-order")
    with pytest.raises(ContactNotFound):
        await ctx.contacts.add_tag("nobody", "has-order")


async def test_unknown_field_is_named(ctx: ConvoticContext) -> None:
    """A misspelt field is an error that lists the fields."""
    with pytest.raises(InvalidField, match=r"firstname: there is no such field.*first_name"):
        await ctx.contacts.create(firstname="Ann")  # type: ignore[call-arg]  # the point of the test


async def test_pages_hold_every_contact_once(ctx: ConvoticContext) -> None:
    """Following the cursors gives all contacts, oldest first."""
    created = [await ctx.contacts.create(external_id=str(number)) for number in range(7)]

    seen = []
    cursor = None
    while True:
        page = await ctx.contacts.list(limit=3, cursor=cursor)
        seen += [contact.id for contact in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == sorted(contact.id for contact in created)
    assert await ctx.contacts.count() == 7


async def test_page_size_is_bounded(ctx: ConvoticContext) -> None:
    """A limit of 0 or above 1,000 is refused."""
    with pytest.raises(InvalidField, match="1 to 1000"):
        await ctx.contacts.list(limit=1001)


async def test_deleted_contact_leaves_nothing_behind(
    ctx: ConvoticContext, store: Store, key_prefix: str
) -> None:
    """Indexes, conversations, messages and idempotency keys go with the contact."""
    contact = await ctx.contacts.create(external_id="c-1", email="a@example.com")
    await ctx.contacts.increment(contact.id, {"orders": 1}, idempotency_key="o-1")
    conversation = await ctx.conversations.create(contact.id)
    await ctx.messages.send(conversation.id, text="Hello", idempotency_key="m-1")

    deleted = await ctx.contacts.delete(contact.id)

    client = store.async_client()
    assert deleted
    assert not await ctx.contacts.delete(contact.id)
    assert [key async for key in client.scan_iter(f"{key_prefix}*")] == []


def test_plain_handlers_have_the_same_services(sync_ctx: SyncConvoticContext) -> None:
    """The generated twins work on the same data without await."""
    contact = sync_ctx.contacts.create(external_id="c-1", email="a@example.com")
    sync_ctx.contacts.add_tag(contact.id, "vip")
    sync_ctx.contacts.increment(contact.id, {"amount": Decimal("0.10")}, idempotency_key="o-1")
    sync_ctx.contacts.increment(contact.id, {"amount": Decimal("0.10")}, idempotency_key="o-1")
    conversation = sync_ctx.conversations.create(contact.id)
    sync_ctx.messages.send(conversation.id, {"text": "Hello"})

    found = sync_ctx.contacts.find_by_external_id("c-1")

    assert found is not None
    assert found.tags == {"vip"}
    assert found.totals == {"amount": Decimal("0.10")}
    assert [message.text for message in sync_ctx.messages.list(conversation.id).items] == ["Hello"]
    with pytest.raises(ContactExists):
        sync_ctx.contacts.create(external_id="c-1")


async def test_what_is_no_text_is_refused_as_a_field(ctx: ConvoticContext) -> None:
    """Not by the client of the store, in its own words."""
    given: Any
    for given in (None, 7, "", "x" * 501):
        with pytest.raises(InvalidField, match="external_id must be a string of 1 to 500"):
            await ctx.contacts.find_by_external_id(given)
        with pytest.raises(InvalidField, match="email must be a string of 1 to 500"):
            await ctx.contacts.find_by_email(given)
        with pytest.raises(InvalidField, match="channel must be a string of 1 to 500"):
            await ctx.conversations.create("c", channel=given)
    with pytest.raises(InvalidField, match="contact field tags: Input should be a valid list"):
        await ctx.contacts.create(tags="vip")
    with pytest.raises(InvalidField, match="'junk' is not a cursor"):
        await ctx.contacts.list(cursor="junk")
