"""Conversations with contacts: open, find, close. Every call is atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context import fields, records, scripts
from convotic_celery.context.paging import Paging
from convotic_celery.errors import ContactNotFound, ConversationNotFound

if TYPE_CHECKING:
    from convotic_celery.context.database import AsyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Conversation, Page

__all__ = ["AsyncConversations"]


class AsyncConversations:
    """The conversations of this installation, in the store.

    All methods raise StoreUnavailable while the store does not answer.
    """

    def __init__(self, database: AsyncDatabase, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def create(self, contact_id: str, *, channel: str = "chat") -> Conversation:
        """Open a conversation with the contact over ``channel``.

        Raises ContactNotFound, and InvalidField unless the channel is text.
        """
        conversation_id = records.new_id()
        kept = {
            "id": conversation_id,
            "contact_id": contact_id,
            "channel": fields.channel_field(channel),
            "status": "open",
            "created_at": records.utc_now(),
        }
        flat = records.flatten(kept)
        created = await self._database.run(
            scripts.CREATE_CONVERSATION,
            [
                self._keys.contact(contact_id),
                self._keys.conversations_of(contact_id),
                self._keys.conversation(conversation_id),
            ],
            conversation_id,
            *flat,
        )
        if not created:
            raise ContactNotFound(contact_id)
        return records.parse_conversation(flat)

    async def get(self, conversation_id: str) -> Conversation:
        """Return the conversation; raises ConversationNotFound."""
        key = self._keys.conversation(conversation_id)
        found = await self._database.run(scripts.READ_HASH, [key])
        if not found:
            raise ConversationNotFound(conversation_id)
        return records.parse_conversation(found)

    async def find_by_contact_id(self, contact_id: str) -> Conversation | None:
        """Return the contact's newest open conversation, or None."""
        found = await self._database.run(
            scripts.FIND_OPEN_CONVERSATION,
            [self._keys.open_conversations_of(contact_id)],
            self._keys.conversation_hashes,
        )
        return records.parse_conversation(found) if found else None

    async def list_by_contact_id(
        self, contact_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Conversation]:
        """Return up to ``limit`` (1 to 1,000) of the contact's conversations, newest first."""
        paging = Paging(limit, cursor, newest_first=True)
        found = await self._database.run(
            scripts.LIST_PAGE,
            [self._keys.conversations_of(contact_id)],
            *paging.arguments(self._keys.conversation("")),
        )
        return paging.page([records.parse_conversation(flat) for flat in found])

    async def close(self, conversation_id: str) -> Conversation:
        """Close the conversation and return it; idempotent. Raises ConversationNotFound."""
        found = await self._database.run(
            scripts.CLOSE_CONVERSATION,
            [self._keys.conversation(conversation_id)],
            conversation_id,
            self._keys.contact(""),
        )
        if not found:
            raise ConversationNotFound(conversation_id)
        return records.parse_conversation(found)
