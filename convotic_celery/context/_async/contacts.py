"""Contacts: find, create, update, tag, and add to their totals. Every call is atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from redis.exceptions import ResponseError

from convotic_celery.context import fields, records, scripts
from convotic_celery.context.paging import Paging
from convotic_celery.context.totals import scale_totals
from convotic_celery.errors import ContactExists, ContactNotFound, InvalidField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from convotic_celery.context.database import AsyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Contact, ContactChanges, ContactFields, Page

__all__ = ["AsyncContacts"]


class AsyncContacts:
    """The contacts of this installation, in the store.

    All methods raise StoreUnavailable while the store does not answer, and can be repeated safely
    then. Each is one round trip.
    """

    def __init__(self, database: AsyncDatabase, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def get(self, contact_id: str) -> Contact:
        """Return the contact; raises ContactNotFound."""
        found = await self._database.run(scripts.READ_HASH, [self._keys.contact(contact_id)])
        if not found:
            raise ContactNotFound(contact_id)
        return records.parse_contact(found)

    async def find_by_external_id(self, external_id: str) -> Contact | None:
        """Return the contact with this id in the other system, or None; raises InvalidField."""
        found = await self._database.run(
            scripts.FIND_CONTACT_BY_EXTERNAL_ID,
            [self._keys.contacts_by_external_id],
            fields.external_id_field(external_id),
            self._keys.contact_hashes,
        )
        return records.parse_contact(found) if found else None

    async def find_by_email(self, email: str) -> Contact | None:
        """Return the oldest contact with this address, ignoring case, or None.

        Raises InvalidField unless the address is text.
        """
        found = await self._database.run(
            scripts.FIND_CONTACT_BY_EMAIL,
            [self._keys.contacts_by_email(fields.email_field(email))],
            self._keys.contact_hashes,
        )
        return records.parse_contact(found) if found else None

    async def create(self, **given: Unpack[ContactFields]) -> Contact:
        """Create a contact and return it.

        Raises ContactExists, with the other contact's id, if the ``external_id`` is taken: of any
        number of concurrent calls, one succeeds. Raises InvalidField.
        """
        kept = fields.contact_fields(given)
        external_id = kept.get("external_id", "")
        contact_id, now = records.new_id(), records.utc_now()
        kept |= {"id": contact_id, "created_at": now, "updated_at": now}
        keys = [self._keys.contact(contact_id), *self._indexes(kept)]
        owner = await self._database.run(
            scripts.CREATE_CONTACT, keys, contact_id, external_id, *records.flatten(kept)
        )
        if owner != contact_id:
            raise ContactExists(external_id, owner)
        return records.contact_of(kept)

    async def find_or_create(self, **given: Unpack[ContactFields]) -> Contact:
        """Return the contact with this ``external_id``, created if there is none.

        The other fields are those of a new contact; one that is there is returned as it is. Of any
        number of concurrent calls, one creates the contact, and all return it. Raises InvalidField,
        also without an ``external_id``.
        """
        kept = fields.contact_fields(given)
        external_id = fields.external_id_field(kept.pop("external_id", None))
        contact_id, now = records.new_id(), records.utc_now()
        found = await self._database.run(
            scripts.FIND_OR_CREATE_CONTACT,
            self._indexes(kept),
            external_id,
            self._keys.contact_hashes,
            contact_id,
            now,
            *records.flatten(kept),
        )
        if found:
            return records.parse_contact(found)
        kept |= {"id": contact_id, "external_id": external_id, "created_at": now, "updated_at": now}
        return records.contact_of(kept)

    def _indexes(self, kept: Mapping[str, str]) -> Sequence[str]:
        """Return the keys of the indexes that a new contact with this hash stands in."""
        keys = [self._keys.contacts_by_external_id, self._keys.contacts]
        if "_email" in kept:
            keys.append(self._keys.contacts_by_email(kept["_email"]))
        return keys

    async def update(self, contact_id: str, **changes: Unpack[ContactChanges]) -> Contact:
        """Change only the given fields and return the contact; None removes a value.

        ``attributes`` are merged by name. Raises ContactNotFound, ContactExists, InvalidField.
        """
        kept, removed = fields.contact_changes(changes)
        kept["updated_at"] = records.utc_now()
        outcome, *rest = await self._database.run(
            scripts.UPDATE_CONTACT,
            [self._keys.contact(contact_id), self._keys.contacts_by_external_id],
            contact_id,
            self._keys.contacts_by_email(""),
            str(len(kept)),
            *records.flatten(kept),
            *removed,
        )
        if outcome == "missing":
            raise ContactNotFound(contact_id)
        if outcome == "taken":
            raise ContactExists(kept["external_id"], rest[0])
        return records.parse_contact(rest[0])

    async def add_tag(self, contact_id: str, tag: str) -> bool:
        """Tag the contact; True if it did not have the tag. Raises ContactNotFound."""
        return await self._set_tag(contact_id, tag, "add")

    async def remove_tag(self, contact_id: str, tag: str) -> bool:
        """Remove the tag; True if the contact had it. Raises ContactNotFound."""
        return await self._set_tag(contact_id, tag, "remove")

    async def _set_tag(self, contact_id: str, tag: str, action: str) -> bool:
        changed = await self._database.run(
            scripts.SET_TAG,
            [self._keys.contact(contact_id)],
            fields.tag_field(tag),
            action,
            records.utc_now(),
        )
        if changed < 0:
            raise ContactNotFound(contact_id)
        return bool(changed)

    async def increment(
        self,
        contact_id: str,
        amounts: Mapping[str, int | Decimal],
        *,
        idempotency_key: str | None = None,
    ) -> bool:
        """Add to the contact's totals, all or nothing; True if this call added them.

        With an ``idempotency_key`` (e.g. an order's id) the amounts are added once to this contact;
        every later call with that key changes nothing and returns False. Keys are kept as long as
        the contact.

        Sums are exact, to six decimal places. Raises ContactNotFound, and InvalidField for a float,
        for more decimal places, and for more than 9.2 trillion.
        """
        names, scaled = scale_totals(amounts)
        try:
            added = await self._database.run(
                scripts.INCREMENT_TOTALS,
                [self._keys.contact(contact_id)],
                fields.idempotency_field(idempotency_key),
                records.new_token(),
                records.utc_now(),
                *names,
                *scaled,
            )
        except ResponseError as error:
            if "overflow" not in str(error):
                raise
            raise InvalidField(f"a total of contact {contact_id} would be too large") from error
        if added < 0:
            raise ContactNotFound(contact_id)
        return bool(added)

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[Contact]:
        """Return up to ``limit`` (1 to 1,000) contacts, oldest first, after ``cursor``."""
        paging = Paging(limit, cursor)
        found = await self._database.run(
            scripts.LIST_PAGE,
            [self._keys.contacts],
            *paging.arguments(self._keys.contact_hashes),
        )
        return paging.page([records.parse_contact(flat) for flat in found])

    async def count(self) -> int:
        """Return how many contacts there are."""
        return int(await self._database.run(scripts.COUNT_IDS, [self._keys.contacts]))

    async def delete(self, contact_id: str) -> bool:
        """Delete the contact with its conversations and messages; True if it was there."""
        deleted = await self._database.run(
            scripts.DELETE_CONTACT,
            [
                self._keys.contact(contact_id),
                self._keys.contacts_by_external_id,
                self._keys.contacts,
            ],
            contact_id,
            self._keys.prefix,
        )
        return bool(deleted)
