"""What goes out: received messages, and the properties of a stream's subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.engine.state import SubscriptionState
    from convotic_emulator.storage.message import Message

__all__ = ["fill_messages"]

_PULL = pubsub.PullResponse


def fill_messages(state: SubscriptionState, response: Proto, messages: Iterable[Message]) -> None:
    """Add messages to a PullResponse or StreamingPullResponse, and drop their data from memory.

    Those whose lease has ended since they were taken (a seek, a detached subscription) have no
    data any more, and are left out.
    """
    received = response.received_messages
    counted = state.rules.max_delivery_attempts > 0
    for message in messages:
        if message.body is None:
            continue
        entry = received.add()
        entry.ack_id = state.ack_id(message)
        entry.message.MergeFromString(message.body)
        if counted:
            entry.delivery_attempt = message.attempts + 1
        message.body = None
