"""The services that all contexts of a process share, and how a team plugs in its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from convotic_celery.context._async.contacts import AsyncContacts
from convotic_celery.context._async.context import ConvoticContext
from convotic_celery.context._async.conversations import AsyncConversations
from convotic_celery.context._async.messages import AsyncMessages
from convotic_celery.context._async.pubsub import AsyncPubsub
from convotic_celery.context._async.schedule import AsyncSchedule
from convotic_celery.context._async.storage import AsyncStorage
from convotic_celery.context._async.workflows import AsyncWorkflows
from convotic_celery.context._sync.contacts import SyncContacts
from convotic_celery.context._sync.context import SyncConvoticContext
from convotic_celery.context._sync.conversations import SyncConversations
from convotic_celery.context._sync.messages import SyncMessages
from convotic_celery.context._sync.pubsub import SyncPubsub
from convotic_celery.context._sync.schedule import SyncSchedule
from convotic_celery.context._sync.storage import SyncStorage
from convotic_celery.context._sync.workflows import SyncWorkflows
from convotic_celery.context.database import AsyncDatabase, SyncDatabase
from convotic_celery.context.keys import Keys
from convotic_celery.context.scheduled import Announcements
from convotic_celery.context.storage import DEFAULT_MAX_VALUE_BYTES
from convotic_celery.errors import ServiceNotProvided

if TYPE_CHECKING:
    from convotic_celery.context._async.protocols import (
        AsyncContactService,
        AsyncConversationService,
        AsyncMessageService,
        AsyncStorageService,
        AsyncWorkflowService,
    )
    from convotic_celery.context._sync.protocols import (
        SyncContactService,
        SyncConversationService,
        SyncMessageService,
        SyncStorageService,
        SyncWorkflowService,
    )
    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.publishing import TopicPublisher
    from convotic_celery.context.store import Store

__all__ = ["Services", "ServicesHook"]

ServiceT = TypeVar("ServiceT")


class Services:
    """The services behind every context, for async and for plain handlers, on one store.

    Creating them opens no connection. Thread-safe; replacements must be, too. Close the store, not
    the services.

    A team replaces one by assigning to the attribute, and adds its own with :meth:`provide`, in the
    function that CONVOTIC_SERVICES or ``create_app(services=...)`` names::

        def plug_in(services: Services) -> None:
            services.async_contacts = CrmContacts()
            services.provide(Billing, Billing("https://billing.example.com"))
    """

    def __init__(
        self,
        store: Store,
        publisher: TopicPublisher,
        *,
        key_prefix: str = "convotic:",
        publish_timeout_seconds: float = 60.0,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        sent_messages_topic: str | None = None,
        current_trace: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        keys = Keys(key_prefix)
        asynchronous, synchronous = AsyncDatabase(store), SyncDatabase(store)
        self.store = store
        self.publisher = publisher
        self.publish_timeout_seconds = publish_timeout_seconds
        #: Set when a message was added to the schedule here: the worker's delayed publisher looks
        #: at once.
        self.schedule_changed = threading.Event()
        self.async_schedule = AsyncSchedule(asynchronous, keys, self.schedule_changed)
        self.sync_schedule = SyncSchedule(synchronous, keys, self.schedule_changed)
        announcements = None
        if sent_messages_topic is not None:
            announcements = Announcements(sent_messages_topic, self.schedule_changed, current_trace)
        self.async_contacts: AsyncContactService = AsyncContacts(asynchronous, keys)
        self.async_conversations: AsyncConversationService = AsyncConversations(asynchronous, keys)
        self.async_messages: AsyncMessageService = AsyncMessages(asynchronous, keys, announcements)
        #: Called with a module's name, once for each context.
        self.async_storage: Callable[[str], AsyncStorageService]
        self.async_storage = partial(
            AsyncStorage, asynchronous, keys, max_value_bytes=max_value_bytes
        )
        self.sync_contacts: SyncContactService = SyncContacts(synchronous, keys)
        self.sync_conversations: SyncConversationService = SyncConversations(synchronous, keys)
        self.sync_messages: SyncMessageService = SyncMessages(synchronous, keys, announcements)
        self.sync_storage: Callable[[str], SyncStorageService]
        self.sync_storage = partial(SyncStorage, synchronous, keys, max_value_bytes=max_value_bytes)
        #: Called with a context's ``pubsub``, when ``ctx.workflows`` is used.
        self.async_workflows: Callable[[AsyncPubsub], AsyncWorkflowService]
        self.async_workflows = partial(AsyncWorkflows, asynchronous, keys)
        self.sync_workflows: Callable[[SyncPubsub], SyncWorkflowService]
        self.sync_workflows = partial(SyncWorkflows, synchronous, keys)
        self._provided: dict[type[Any], object] = {}

    def provide(self, kind: type[ServiceT], service: ServiceT) -> None:
        """Make ``ctx.service(kind)`` return ``service`` in every handler and route."""
        self._provided[kind] = service

    def find(self, kind: type[ServiceT]) -> ServiceT:
        """Return the service of type ``kind``; raises ServiceNotProvided."""
        try:
            return cast("ServiceT", self._provided[kind])
        except KeyError:
            raise ServiceNotProvided(f"{kind.__module__}.{kind.__qualname__}") from None

    def async_pubsub(self, trace: Mapping[str, str] | None = None) -> AsyncPubsub:
        """Return what coroutines publish with; ``trace`` is passed on in each message."""
        return AsyncPubsub(
            self.publisher,
            self.async_schedule,
            timeout_seconds=self.publish_timeout_seconds,
            trace=trace or {},
        )

    def sync_pubsub(self, trace: Mapping[str, str] | None = None) -> SyncPubsub:
        """Return what plain code publishes with; as :meth:`async_pubsub`."""
        return SyncPubsub(
            self.publisher,
            self.sync_schedule,
            timeout_seconds=self.publish_timeout_seconds,
            trace=trace or {},
        )

    def async_context(self, delivery: Delivery) -> ConvoticContext:
        """Return the context of an ``async def`` handler for one run."""
        return ConvoticContext(self, delivery)

    def sync_context(self, delivery: Delivery) -> SyncConvoticContext:
        """Return the context of a plain ``def`` handler for one run."""
        return SyncConvoticContext(self, delivery)


#: Called once a process with the services, when the app is made; changes them.
ServicesHook: TypeAlias = Callable[[Services], None]
