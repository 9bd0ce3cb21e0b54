"""Which of AMQP's arguments a queue on Pub/Sub can have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from convotic_pubsub.errors import OptionError

__all__ = ["check_arguments"]

#: What would be dropped without a word, as kombu and as RabbitMQ name it, and what to do instead.
_REFUSED: Final = {
    "max_priority": "Pub/Sub does not deliver by priority: use a separate queue for urgent tasks",
    "message_ttl": "Pub/Sub has no expiration of a queue's messages: use Celery's expires= for "
    "each task",
    "max_length": "a subscription has no limit of messages",
    "max_length_bytes": "a subscription has no limit of messages",
}


def check_arguments(queue: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a queue with arguments that change what becomes of its messages.

    Others (``x-expires``, ``x-queue-type``, …) have no effect, and cost no message.

    Raises:
        OptionError: with the argument's name and the reason.
    """
    for name, reason in _REFUSED.items():
        for key in (name, f"x-{name.replace('_', '-')}"):
            if arguments.get(key):
                raise OptionError(f"queue {queue!r} can't have {key}={arguments[key]!r}: {reason}")
