"""Which requests are stored as they came: those whose messages are data only."""

from __future__ import annotations

from typing import Any

import pytest
from google.pubsub_v1.types import pubsub

from convotic_emulator.engine.plain import MIN_PACKED, plain_bodies

MESSAGE = pubsub.PubsubMessage.pb()


def request(*messages: Any) -> Any:
    """Return a publish request that has each message often enough."""
    return pubsub.PublishRequest.pb()(topic="t", messages=list(messages) * MIN_PACKED)


@pytest.mark.parametrize("size", [1, 125, 126, 127, 128, 129, 16_380, 16_383, 16_384, 2_097_152])
def test_messages_of_data_are_plain(size: int) -> None:
    """Wherever their length needs another byte; the bodies are the messages."""
    message = MESSAGE(data=b"x" * size)

    assert plain_bodies(request(message)) == [message.SerializeToString()] * MIN_PACKED


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE(),
        MESSAGE(data=b"x", attributes={"a": "b"}),
        MESSAGE(attributes={"a": "b"}),
        MESSAGE(data=b"x", ordering_key="key"),
        MESSAGE(data=b"x", message_id="1"),
    ],
)
def test_one_other_message_makes_a_request_ordinary(message: Any) -> None:
    """It is checked, and may have a key."""
    assert plain_bodies(request(MESSAGE(data=b"x"), message)) is None
