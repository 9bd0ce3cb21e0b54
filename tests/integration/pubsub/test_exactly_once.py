"""Exactly-once delivery: a lost lease costs its own message a repetition, and no other anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.pubsub import make_spec, pull
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import MakeHarness


def test_a_refused_acknowledgement_fails_alone(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Of four acknowledged together one had lost its lease: it is redelivered, three are done."""
    spec = make_spec(enable_exactly_once_delivery=True, concurrency=4, buffer_messages=0)
    one = harness(broker, spec, pull_mode="unary")  # a stream would bring the lost one at once
    one.consume()
    ids = one.publish(0, 1, 2, 3)
    one.drain_until(lambda: len(one.messages) == 4)
    one.cancel()
    held = one.session.outstanding
    path = f"projects/test-project/subscriptions/{spec.subscription}"
    found = held.find((spec.subscription, ids[0]))
    assert found is not None

    async def take_away(ack_id: str) -> None:
        await one.session.broker.rpc.modify_ack_deadline(path, [ack_id], 0)

    one.session.call(take_away(found.ack_id))
    for message in one.messages:
        message.ack()
    wait_until(lambda: not held)
    one.session.flush()  # the warning comes after the answers

    refused = [
        each.__dict__
        for each in caplog.records
        if each.levelname == "WARNING" and each.name.startswith("convotic_pubsub")
    ]
    assert [(each["action"], each["count"]) for each in refused] == [("ack_failed", 1)]
    left = wait_until(lambda: list(pull(one.session, spec.subscription)))
    assert [each.message.message_id for each in left] == [ids[0]]
