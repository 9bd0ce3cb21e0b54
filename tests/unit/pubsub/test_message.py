"""A raw message is made without kombu's constructors, and has all that they give it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu import message as kombus
from kombu.transport import virtual

from convotic_pubsub.kombu.message import Message
from convotic_pubsub.queue import RAW_CONTENT_TYPE

_WHOLE = {
    "body": b"{}",
    "content-type": RAW_CONTENT_TYPE,
    "content-encoding": "binary",
    "headers": {"task": "t.m"},
    "properties": {"delivery_tag": "7", "delivery_info": {"routing_key": "t.m"}, "priority": 0},
}
_BARE = {"content-type": RAW_CONTENT_TYPE, "properties": {"delivery_tag": "7"}}


@pytest.mark.parametrize("payload", [_WHOLE, _BARE])
def test_a_raw_message_has_what_kombus_constructors_give_it(payload: dict[str, Any]) -> None:
    """Each attribute, in kombu's next version too."""
    channel: Any = SimpleNamespace(decode_body=lambda body, _encoding: body)
    theirs: Any = virtual.Message(payload, channel=channel)
    ours: Any = Message(payload, channel=channel)
    bases: Any = kombus.Message
    names = {*bases.__slots__, *vars(theirs)} - {"__dict__"}

    assert {name: getattr(ours, name) for name in names} == {
        name: getattr(theirs, name) for name in names
    }
    assert {"body", "_state", "errors", "_raw"} < names
