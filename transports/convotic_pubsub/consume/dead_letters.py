"""Publishes messages to the dead-letter topics of their queues (I/O thread)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from convotic_pubsub.errors import MessageTooLarge
from convotic_pubsub.limits import fit_attributes
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from convotic_pubsub.consume.ports import PublishCopy
    from convotic_pubsub.queue import QueueSpec, Received

__all__ = ["publish_again", "publish_dead_letter", "report_missing_topic"]

logger = logging.getLogger(__name__)

_REASON = "convotic-dead-letter-reason"


async def publish_dead_letter(
    publish: PublishCopy, spec: QueueSpec, received: Received, attributes: Mapping[str, str]
) -> bool:
    """Publish a copy with ``attributes`` added; False if that was not confirmed.

    Then the message must not be acknowledged. Raises nothing; both outcomes are logged.
    """
    attributes = fit_attributes(received.data, received.attributes, attributes)
    if not received.data and not attributes:
        attributes = {_REASON: "rejected"}  # Pub/Sub refuses an empty message
    try:
        message_id, attributes = await _publish(publish, spec, received, attributes)
    except Exception as error:  # noqa: BLE001  whatever it is, the message must not be acknowledged
        logger.error(  # noqa: TRY400  the text is the server's answer, no traceback of ours helps
            "Message %s of queue %s can't be published to dead-letter topic %s and is not "
            "acknowledged; Pub/Sub will deliver it again: %s",
            received.message_id,
            spec.queue,
            spec.dead_letter_topic,
            error,
            extra={"action": "dead_letter_failed", "queue": spec.queue},
        )
        return False
    logger.warning(
        "Message %s of queue %s went to dead-letter topic %s: %s",
        received.message_id,
        spec.queue,
        spec.dead_letter_topic,
        attributes.get(_REASON, "no reason given"),
        extra={"action": "dead_lettered", "queue": spec.queue},
    )
    _tell(spec, received, attributes, message_id)
    return True


async def publish_again(publish: PublishCopy, spec: QueueSpec, received: Received) -> bool:
    """Publish a message once more to its own topic; False if that was not confirmed.

    Then the message must not be acknowledged. Raises nothing.
    """
    message = OutgoingMessage(spec.topic, received.data, received.attributes, received.ordering_key)
    try:
        await publish(message)
    except Exception as error:  # noqa: BLE001  whatever it is, the message must not be acknowledged
        logger.warning(
            "Message %s of queue %s, delivered %d times and not run, can't be published once more; "
            "Pub/Sub will deliver it again: %s",
            received.message_id,
            spec.queue,
            received.delivery_attempt,
            error,
            extra={"action": "send_again_failed", "queue": spec.queue},
        )
        return False
    return True


async def _publish(
    publish: PublishCopy, spec: QueueSpec, received: Received, attributes: Mapping[str, str]
) -> tuple[str, Mapping[str, str]]:
    """Publish a copy; with the attributes that it came with, if it is too large otherwise.

    Return its id and the attributes that it has.
    """
    message = OutgoingMessage(spec.dead_letter_topic, received.data, attributes)
    try:
        return await publish(message), attributes
    except MessageTooLarge:
        bare = replace(message, attributes=received.attributes)
        return await publish(bare), received.attributes


def _tell(
    spec: QueueSpec, received: Received, attributes: Mapping[str, str], message_id: str
) -> None:
    """Call the queue's listener; its errors change nothing, the dead letter is published."""
    if spec.on_dead_letter is None:
        return
    try:
        spec.on_dead_letter(received, attributes, message_id)
    except Exception:
        logger.exception(
            "The listener for dead letters of queue %s failed on message %s",
            spec.queue,
            received.message_id,
            extra={"action": "dead_letter_listener_failed", "queue": spec.queue},
        )


def report_missing_topic(spec: QueueSpec, received: Received) -> None:
    """Log that a message is acknowledged without a copy: it has no dead-letter topic."""
    logger.error(
        "Message %s of queue %s is acknowledged and lost: its queue has no dead-letter topic",
        received.message_id,
        spec.queue,
        extra={"action": "dead_letter_missing", "queue": spec.queue},
    )
