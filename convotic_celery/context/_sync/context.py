"""The context that a plain ``def`` handler is given."""

# Generated from _async/context.py by scripts/unasync.py; edit that.

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from convotic_celery.context._sync.pubsub import SyncPubsub
from convotic_celery.context.logger import build_logger

if TYPE_CHECKING:
    from convotic_celery.context._sync.protocols import (
        SyncContactService,
        SyncConversationService,
        SyncMessageService,
        SyncStorageService,
    )
    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.logger import HandlerLogger
    from convotic_celery.context.services import Services

__all__ = ["SyncConvoticContext"]

ServiceT = TypeVar("ServiceT")


class SyncConvoticContext:
    """What a handler works with while it handles one message, and a route one request.

    Services are shared by all messages of a process; logger and pubsub know the message, the
    storage is the module's. Not to be kept beyond the handler.
    """

    def __init__(self, services: Services, delivery: Delivery) -> None:
        self._delivery = delivery
        self._services = services
        self.contacts: SyncContactService = services.sync_contacts
        self.conversations: SyncConversationService = services.sync_conversations
        self.messages: SyncMessageService = services.sync_messages
        self.storage: SyncStorageService = services.sync_storage(delivery.module)
        self.pubsub = SyncPubsub(
            services.publisher,
            timeout_seconds=services.publish_timeout_seconds,
            trace=delivery.trace,
        )
        self.logger: HandlerLogger = build_logger(**delivery.log_fields())

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return the team's own service of this type; raises ServiceNotProvided.

        It is what ``services.provide(kind, service)`` was given, see CONVOTIC_SERVICES.
        """
        return self._services.find(kind)

    @property
    def attempt(self) -> int:
        """1 on the first run of the message, 2 on the first retry."""
        return self._delivery.attempt

    @property
    def is_replay(self) -> bool:
        """True if the message was sent again from the dead-letter topic."""
        return self._delivery.is_replay

    @property
    def delivery(self) -> Delivery:
        """The message's delivery: handler, topic, ids."""
        return self._delivery
