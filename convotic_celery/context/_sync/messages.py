"""Messages in conversations: send once, receive, list. Every call is atomic."""

# Generated from _async/messages.py by scripts/unasync.py; edit that.

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context import fields, records, scripts
from convotic_celery.context.paging import Paging
from convotic_celery.errors import ConversationNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convotic_celery.context.database import SyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Direction, Message, Page
    from convotic_celery.context.scheduled import Announcements

__all__ = ["SyncMessages"]


class SyncMessages:
    """The messages of all conversations, in the store.

    All methods raise StoreUnavailable while the store does not answer.
    """

    def __init__(
        self, database: SyncDatabase, keys: Keys, announcements: Announcements | None = None
    ) -> None:
        self._database = database
        self._keys = keys
        self._announcements = announcements

    def send(
        self,
        conversation_id: str,
        content: Mapping[str, object] | None = None,
        *,
        text: str | None = None,
        idempotency_key: str | None = None,
    ) -> Message:
        """Send ``text`` to the contact and return the message.

        With an ``idempotency_key`` it is sent once in this conversation: every later call with that
        key sends nothing and returns the first message. ``content`` is the same as a mapping:
        ``send(conversation.id, {"text": "Hello"})``.

        A worker announces the message, a :class:`Message` as data, on the topic that
        CONVOTIC_SENT_MESSAGES_TOPIC names, at least once. The announcement is stored atomically
        with the message, and problems with the topic don't reach the caller.

        Raises ConversationNotFound, and InvalidField without a text.
        """
        given = fields.message_content(content, text, idempotency_key)
        return self._add(conversation_id, given, "outbound", self._announcements)

    def receive(
        self, conversation_id: str, *, text: str, idempotency_key: str | None = None
    ) -> Message:
        """Store a message from the contact, once per ``idempotency_key``; arguments as ``send``."""
        given = fields.message_content(None, text, idempotency_key)
        return self._add(conversation_id, given, "inbound", None)

    def _add(
        self,
        conversation_id: str,
        given: fields.MessageContent,
        direction: Direction,
        announcements: Announcements | None,
    ) -> Message:
        message_id = records.new_id()
        kept = {
            "id": message_id,
            "conversation_id": conversation_id,
            "text": given.text,
            "direction": direction,
            "created_at": records.utc_now(),
        }
        flat = records.flatten(kept)
        found = self._database.run(
            scripts.SEND_MESSAGE,
            [
                self._keys.conversation(conversation_id),
                self._keys.messages_of(conversation_id),
                self._keys.sent(conversation_id),
                self._keys.schedule,
            ],
            message_id,
            fields.idempotency_field(given.idempotency_key),
            self._keys.message(""),
            self._keys.scheduled(""),
            *(announcements.encode(message_id, kept) if announcements else ("", "", "", "")),
            *flat,
        )
        if found is None:
            raise ConversationNotFound(conversation_id)
        if announcements:
            announcements.changed.set()
        return records.parse_message(found or flat)

    def list(
        self, conversation_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Message]:
        """Return up to ``limit`` (1 to 1,000) messages of the conversation, oldest first."""
        paging = Paging(limit, cursor)
        found = self._database.run(
            scripts.LIST_PAGE,
            [self._keys.messages_of(conversation_id)],
            *paging.arguments(self._keys.message("")),
        )
        return paging.page([records.parse_message(flat) for flat in found])
