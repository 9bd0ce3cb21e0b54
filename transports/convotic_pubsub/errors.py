"""The transport's errors, and the one place where Google's become ours.

::

    PubsubTransportError
    ├── OptionError              a URL or transport option that can't be used
    ├── PublishError             the server did not confirm a publish
    │   ├── DelayTooLong
    │   ├── MessageTooLarge
    │   └── TopicNotFound
    ├── SubscriptionNotFound
    ├── SubscriptionMismatch     it exists with settings that can't be changed
    ├── AccessDenied
    └── BrokerUnavailable        transient; kombu reconnects and retries
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "BrokerUnavailable",
    "DelayTooLong",
    "MessageTooLarge",
    "OptionError",
    "PublishError",
    "PubsubTransportError",
    "SubscriptionMismatch",
    "SubscriptionNotFound",
    "TopicNotFound",
]


class PubsubTransportError(Exception):
    """Base of all errors raised by ``convotic_pubsub``."""


class OptionError(PubsubTransportError):
    """A broker URL or transport option can't be used; the text names it and the rule."""


class PublishError(PubsubTransportError):
    """The server did not confirm a publish. The message may or may not have been stored."""


class MessageTooLarge(PublishError):
    """The message exceeds Pub/Sub's 10,000,000 bytes; nothing was sent."""


class DelayTooLong(PublishError):
    """A task is due later than Pub/Sub keeps its message; nothing was sent."""


class TopicNotFound(PublishError):
    """The topic does not exist; nothing was stored."""


class SubscriptionNotFound(PubsubTransportError):
    """The subscription does not exist."""


class SubscriptionMismatch(PubsubTransportError):
    """The subscription exists with a topic or ordering that Pub/Sub can't change."""


class AccessDenied(PubsubTransportError):
    """The credentials lack a permission or have expired; the text names resource and method."""


class BrokerUnavailable(PubsubTransportError):
    """Pub/Sub can't be reached or failed transiently; kombu reconnects with back-off."""
