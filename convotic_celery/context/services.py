"""What all contexts of a process share: :class:`Services`. Made once, by the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context._async.contacts import AsyncContacts
from convotic_celery.context._async.context import ConvoticContext
from convotic_celery.context._async.conversations import AsyncConversations
from convotic_celery.context._async.messages import AsyncMessages
from convotic_celery.context._sync.contacts import SyncContacts
from convotic_celery.context._sync.context import SyncConvoticContext
from convotic_celery.context._sync.conversations import SyncConversations
from convotic_celery.context._sync.messages import SyncMessages
from convotic_celery.context.database import AsyncDatabase, SyncDatabase
from convotic_celery.context.keys import Keys

if TYPE_CHECKING:
    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.publishing import TopicPublisher
    from convotic_celery.context.store import Store

__all__ = ["Services"]


class Services:
    """The services behind every context, for async and for plain handlers, on one store.

    Making them opens no connection. Thread-safe. Close the store, not the services.
    """

    def __init__(
        self,
        store: Store,
        publisher: TopicPublisher,
        *,
        key_prefix: str = "convotic:",
        publish_timeout_seconds: float = 60.0,
    ) -> None:
        keys = Keys(key_prefix)
        asynchronous, synchronous = AsyncDatabase(store), SyncDatabase(store)
        self.store = store
        self.publisher = publisher
        self.publish_timeout_seconds = publish_timeout_seconds
        self.async_contacts = AsyncContacts(asynchronous, keys)
        self.async_conversations = AsyncConversations(asynchronous, keys)
        self.async_messages = AsyncMessages(asynchronous, keys)
        self.sync_contacts = SyncContacts(synchronous, keys)
        self.sync_conversations = SyncConversations(synchronous, keys)
        self.sync_messages = SyncMessages(synchronous, keys)

    def async_context(self, delivery: Delivery) -> ConvoticContext:
        """Return the context of an ``async def`` handler for one run."""
        return ConvoticContext(self, delivery)

    def sync_context(self, delivery: Delivery) -> SyncConvoticContext:
        """Return the context of a plain ``def`` handler for one run."""
        return SyncConvoticContext(self, delivery)
