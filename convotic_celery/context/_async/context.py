"""The context that an ``async def`` handler is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context._async.pubsub import AsyncPubsub
from convotic_celery.context.logger import build_logger

if TYPE_CHECKING:
    from convotic_celery.context._async.contacts import AsyncContacts
    from convotic_celery.context._async.conversations import AsyncConversations
    from convotic_celery.context._async.messages import AsyncMessages
    from convotic_celery.context.delivery import Delivery
    from convotic_celery.context.logger import HandlerLogger
    from convotic_celery.context.services import Services

__all__ = ["ConvoticContext"]


class ConvoticContext:
    """What a handler works with while it handles one message.

    Services are shared by all messages of a process; logger and pubsub know the message. Not to be
    kept beyond the handler.
    """

    def __init__(self, services: Services, delivery: Delivery) -> None:
        self._delivery = delivery
        self.contacts: AsyncContacts = services.async_contacts
        self.conversations: AsyncConversations = services.async_conversations
        self.messages: AsyncMessages = services.async_messages
        self.pubsub = AsyncPubsub(
            services.publisher,
            timeout_seconds=services.publish_timeout_seconds,
            trace=delivery.trace,
        )
        self.logger: HandlerLogger = build_logger(**delivery.log_fields())

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
