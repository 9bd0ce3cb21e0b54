"""Publishing, pulling, acknowledging; leases and what becomes of them."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t

from tests.conformance.broker import LONG_LEASE_SECONDS, Broker, bodies
from tests.support.waiting import PATIENCE, never, wait_until


def test_a_message_arrives_as_it_was_published(
    broker: Broker, topic: str, subscription: str
) -> None:
    """Data, attributes, id and publish time are delivered."""
    before = time.time()

    [identifier] = broker.publish(topic, b"\x00order", attributes={"kind": "new"})

    [received] = broker.pull(subscription)
    message = received.message
    assert (message.data, dict(message.attributes)) == (b"\x00order", {"kind": "new"})
    assert message.message_id == identifier
    assert before - 5 <= message.publish_time.seconds <= time.time() + 5
    assert received.delivery_attempt == 0


def test_an_acknowledged_message_does_not_come_back(
    broker: Broker, topic: str, subscription: str
) -> None:
    """An acknowledgement beats the end of the lease."""
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    broker.modify(subscription, received, 1)

    broker.acknowledge(subscription, received)

    never(lambda: broker.pull_now(subscription), for_=1.5)


def test_each_subscription_gets_its_own_copy(broker: Broker, topic: str) -> None:
    """Acknowledging in one subscription leaves the other's copy; a later one gets nothing."""
    first, second = broker.subscription(topic), broker.subscription(topic)
    broker.publish(topic, b"x")
    late = broker.subscription(topic)

    broker.acknowledge(first, broker.pull(first))

    assert bodies(broker.pull(second)) == [b"x"]
    assert not broker.pull_now(late)


def test_a_lease_ends_when_its_deadline_says(broker: Broker, topic: str) -> None:
    """A deadline of one second counts, not the subscription's ten minutes."""
    subscription = broker.subscription(topic, ack_deadline_seconds=LONG_LEASE_SECONDS)
    broker.publish(topic, b"x")
    received = broker.pull(subscription)

    start = time.monotonic()
    broker.modify(subscription, received, 1)
    wait_until(lambda: broker.pull_now(subscription))

    assert time.monotonic() - start > 0.95


def test_an_extended_lease_holds(broker: Broker, topic: str, subscription: str) -> None:
    """The last deadline counts, be it later or earlier than the one before."""
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    broker.modify(subscription, received, 4)

    broker.modify(subscription, received, 60)

    never(lambda: broker.pull_now(subscription), for_=4.4)
    broker.modify(subscription, received, 1)
    wait_until(lambda: broker.pull_now(subscription))


def test_a_nacked_message_comes_back_at_once(broker: Broker, topic: str) -> None:
    """A deadline of 0 makes the message available, long before its lease would have ended."""
    subscription = broker.subscription(topic, ack_deadline_seconds=LONG_LEASE_SECONDS)
    broker.publish(topic, b"x")

    broker.modify(subscription, broker.pull(subscription), 0)

    assert bodies(broker.pull(subscription)) == [b"x"]


def test_a_late_acknowledgement_counts_until_redelivery(
    broker: Broker, topic: str, subscription: str
) -> None:
    """The lease has ended, no other client has the message: it is gone."""
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    broker.modify(subscription, received, 1)
    never(lambda: False, for_=1.2)  # nobody may pull meanwhile: time itself is the condition

    broker.acknowledge(subscription, received)

    never(lambda: broker.pull_now(subscription), for_=0.3)


def test_an_old_ack_id_does_not_acknowledge_a_newer_delivery(
    broker: Broker, topic: str, subscription: str
) -> None:
    """After redelivery only the newest ack id counts; the old one is no error."""
    broker.publish(topic, b"x")
    old = broker.pull(subscription)
    broker.modify(subscription, old, 0)
    new = broker.pull(subscription)
    assert new[0].ack_id != old[0].ack_id

    broker.acknowledge(subscription, old)

    broker.modify(subscription, new, 0)
    assert bodies(broker.pull(subscription)) == [b"x"]


def test_acknowledging_twice_is_no_error(broker: Broker, topic: str, subscription: str) -> None:
    """Acknowledging is idempotent."""
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    broker.acknowledge(subscription, received)

    broker.acknowledge(subscription, received)


def test_a_malformed_ack_id_is_refused(broker: Broker, subscription: str) -> None:
    """INVALID_ARGUMENT, for acknowledgements and deadlines."""
    bogus = [t.ReceivedMessage.pb()(ack_id="bogus")]

    with pytest.raises(grpc.RpcError) as acknowledging:
        broker.acknowledge(subscription, bogus)
    with pytest.raises(grpc.RpcError) as modifying:
        broker.modify(subscription, bogus, 10)

    assert acknowledging.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert modifying.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_pull_waits_for_a_message(broker: Broker, topic: str, subscription: str) -> None:
    """It answers when something is published, long before its deadline."""
    _, request, response = "Subscriber", t.PullRequest.pb(), t.PullResponse.pb()
    pull = broker.channel.unary_unary(
        "/google.pubsub.v1.Subscriber/Pull",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    pending = pull.future(request(subscription=subscription, max_messages=10), timeout=600)
    never(pending.done, for_=0.2)

    broker.publish(topic, b"x")

    assert bodies(pending.result(PATIENCE).received_messages) == [b"x"]


def test_a_pull_answers_before_its_deadline(broker: Broker, subscription: str) -> None:
    """Nothing to deliver is an empty answer, not DEADLINE_EXCEEDED."""

    def is_answered() -> bool:
        try:
            assert broker.pull(subscription, wait=2.0) == []
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            return False  # a slow machine: the answer was on its way when the time was over
        return True

    wait_until(is_answered)


def test_a_pull_returns_at_most_what_it_asked_for(
    broker: Broker, topic: str, subscription: str
) -> None:
    """max_messages is a bound; the rest stays available."""
    broker.publish(topic, *[b"%d" % n for n in range(5)])

    assert len(broker.pull(subscription, limit=2)) == 2
    assert len(broker.pull_all(subscription, 3)) == 3


def test_messages_come_in_the_order_of_publishing(
    broker: Broker, topic: str, subscription: str
) -> None:
    """Not promised without ordering keys, but what people see."""
    sent = [b"%d" % n for n in range(50)]
    broker.publish(topic, *sent)

    assert bodies(broker.pull_all(subscription, 50)) == sent


def test_retry_policy_delays_redelivery(broker: Broker, topic: str) -> None:
    """A nacked message comes back after the back-off; others are not delayed."""
    policy = t.RetryPolicy.pb()()
    policy.minimum_backoff.seconds = policy.maximum_backoff.seconds = 6
    subscription = broker.subscription(topic, retry_policy=policy)
    broker.publish(topic, b"x")
    if not broker.features.backoff_of_first:
        broker.modify(subscription, broker.pull(subscription), 0)

    received = broker.pull(subscription)
    start = time.monotonic()
    broker.modify(subscription, received, 0)

    broker.publish(topic, b"y")
    received = broker.pull(subscription)
    broker.acknowledge(subscription, received)
    assert bodies(received) == [b"y"]
    assert bodies(wait_until(lambda: broker.pull_now(subscription))) == [b"x"]
    assert time.monotonic() - start > 5.5


def test_exactly_once_names_the_ack_ids_it_refuses(broker: Broker, topic: str) -> None:
    """An expired lease: acknowledgement and deadline fail, with the id in ErrorInfo."""
    subscription = broker.subscription(topic, enable_exactly_once_delivery=True)
    broker.publish(topic, b"x")
    received = broker.pull(subscription)
    broker.modify(subscription, received, 0)

    for refuse in (broker.acknowledge, lambda s, m: broker.modify(s, m, 10)):
        with pytest.raises(grpc.RpcError) as refused:
            refuse(subscription, received)

        metadata: Any = refused.value.trailing_metadata()
        details = dict(metadata)["grpc-status-details-bin"]
        assert b"PERMANENT_FAILURE_INVALID_ACK_ID" in details
        assert received[0].ack_id.encode() in details
