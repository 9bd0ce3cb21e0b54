"""StreamingPull: flow control, deadlines, and how streams end."""

from __future__ import annotations

import time
from typing import Any

import grpc

from tests.conformance.broker import LONG_LEASE_SECONDS, Broker, bodies
from tests.support.waiting import PATIENCE, never, wait_until


def test_a_stream_delivers_and_acknowledges(broker: Broker, topic: str, subscription: str) -> None:
    """Messages of before and after its start come; acknowledgements go over the stream."""
    broker.publish(topic, b"before")
    stream = broker.stream(subscription)
    wait_until(lambda: len(stream.received) == 1)

    broker.publish(topic, b"after")

    wait_until(lambda: len(stream.received) == 2)
    assert bodies(stream.received) == [b"before", b"after"]
    stream.modify(stream.received, 4)
    stream.acknowledge(stream.received)
    never(lambda: len(stream.received) > 2, for_=4.4)


def test_a_nack_over_the_stream_redelivers(broker: Broker, topic: str, subscription: str) -> None:
    """A deadline of 0 over the stream is a nack."""
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: len(stream.received) == 1)

    stream.modify(stream.received, 0)

    wait_until(lambda: len(stream.received) == 2)


def test_half_close_ends_a_stream_and_keeps_its_leases(
    broker: Broker, topic: str, subscription: str
) -> None:
    """Status OK; the message is still leased, and its ack id still works."""
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: len(stream.received) == 1)

    stream.half_close()

    assert stream.ended.wait(PATIENCE)
    assert stream.code == grpc.StatusCode.OK
    never(lambda: broker.pull_now(subscription), for_=0.3)
    broker.modify(subscription, stream.received, 1)
    wait_until(lambda: broker.pull_now(subscription))


def test_a_cancelled_stream_takes_no_more_messages(
    broker: Broker, topic: str, subscription: str
) -> None:
    """What is published after its end goes to others."""
    first = broker.stream(subscription)
    broker.publish(topic, b"1")
    wait_until(lambda: len(first.received) == 1)
    first.acknowledge(first.received)
    first.cancel()

    second = broker.stream(subscription)
    broker.publish(topic, *[b"%d" % n for n in range(20)])

    wait_until(lambda: len(second.received) >= 20)


def test_the_stream_has_its_own_deadline(broker: Broker, topic: str) -> None:
    """stream_ack_deadline_seconds replaces the subscription's, and is required."""
    subscription = broker.subscription(topic, ack_deadline_seconds=30)

    refused = broker.stream(subscription, stream_ack_deadline_seconds=5)
    assert refused.ended.wait(PATIENCE)

    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_bogus_ack_id_aborts_the_stream(broker: Broker, subscription: str) -> None:
    """INVALID_ARGUMENT."""
    stream = broker.stream(subscription)

    stream.send(ack_ids=["bogus"])

    assert stream.ended.wait(PATIENCE)
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT


def test_deleting_the_subscription_ends_its_streams(broker: Broker, subscription: str) -> None:
    """NOT_FOUND."""
    stream = broker.stream(subscription)
    never(stream.ended.is_set, for_=0.2)

    broker.call("DeleteSubscription", subscription=subscription)

    assert stream.ended.wait(PATIENCE)
    assert stream.code == grpc.StatusCode.NOT_FOUND


def test_a_heartbeat_is_no_error(broker: Broker, topic: str, subscription: str) -> None:
    """Clients send an empty request from time to time."""
    stream = broker.stream(subscription)

    stream.send()

    broker.publish(topic, b"x")
    wait_until(lambda: len(stream.received) == 1)
    assert not stream.ended.is_set()


def test_streams_share_the_work(broker: Broker, topic: str, subscription: str) -> None:
    """Each message goes to one of them, and each of them gets some."""
    first, second = (
        broker.stream(subscription, stream_ack_deadline_seconds=LONG_LEASE_SECONDS)
        for _ in range(2)
    )
    published: list[str] = []

    def have_both_some() -> bool:
        published.extend(broker.publish(topic, *[b"x"] * 50))
        return bool(first.received and second.received)

    wait_until(have_both_some)  # one of them may open later than the other

    wait_until(lambda: len(first.received) + len(second.received) >= len(published))
    identifiers = [m.message.message_id for m in (*first.received, *second.received)]
    assert sorted(identifiers) == sorted(published)


def test_outstanding_messages_are_bounded(broker: Broker, topic: str, subscription: str) -> None:
    """Five at a time; an acknowledgement makes room for one more."""
    broker.needs("flow_control", "ignores max_outstanding_messages")
    stream = broker.stream(
        subscription,
        max_outstanding_messages=5,
        stream_ack_deadline_seconds=LONG_LEASE_SECONDS,
    )
    broker.publish(topic, *[b"x"] * 20)
    wait_until(lambda: len(stream.received) == 5)
    never(lambda: len(stream.received) > 5, for_=0.3)

    stream.acknowledge(stream.received[:1])

    wait_until(lambda: len(stream.received) == 6)
    never(lambda: len(stream.received) > 6, for_=0.2)


def test_outstanding_bytes_are_bounded(broker: Broker, topic: str, subscription: str) -> None:
    """No more is sent once the bound is reached."""
    broker.needs("flow_control", "ignores max_outstanding_bytes")
    stream = broker.stream(
        subscription, max_outstanding_bytes=2500, stream_ack_deadline_seconds=LONG_LEASE_SECONDS
    )
    broker.publish(topic, *[b"x" * 1000] * 10)

    wait_until(lambda: len(stream.received) == 3)
    never(lambda: len(stream.received) > 3, for_=0.3)


def test_a_lapse_frees_the_place(broker: Broker, topic: str, subscription: str) -> None:
    """A message whose lease has ended does not count as outstanding on its stream."""
    broker.needs("flow_control", "ignores max_outstanding_messages")
    stream = broker.stream(subscription, max_outstanding_messages=1)
    broker.publish(topic, b"1", b"2")
    wait_until(lambda: len(stream.received) == 1)

    start = time.monotonic()
    stream.modify(stream.received, 1)

    wait_until(lambda: len(stream.received) == 2)
    assert time.monotonic() - start > 0.9


def test_flow_control_is_set_by_the_first_request_only(broker: Broker, subscription: str) -> None:
    """INVALID_ARGUMENT."""
    broker.needs("flow_control", "accepts it silently")
    stream = broker.stream(subscription, max_outstanding_messages=5)

    stream.send(max_outstanding_messages=6)

    assert stream.ended.wait(PATIENCE)
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT


def test_responses_fit_a_client_with_default_limits(broker: Broker, topic: str) -> None:
    """12 MB in messages of 600 kB: each response stays below 4 MiB."""
    broker.needs("bounded_responses", "sends up to 100 messages whatever their size")
    subscription = broker.subscription(topic, ack_deadline_seconds=LONG_LEASE_SECONDS)
    for _ in range(4):
        broker.publish(topic, *[b"x" * 600_000] * 5)

    pulled = broker.pull_now(subscription)  # an error if it is too large
    stream = broker.stream(subscription, stream_ack_deadline_seconds=LONG_LEASE_SECONDS)

    wait_until(lambda: len(stream.received) + len(pulled) == 20)
    assert pulled


def test_the_response_tells_the_subscription_properties(broker: Broker, topic: str) -> None:
    """Clients read from it whether ordering and exactly-once are on."""
    settings: list[dict[str, Any]] = [
        {"enable_exactly_once_delivery": True, "enable_message_ordering": False},
        {"enable_exactly_once_delivery": False, "enable_message_ordering": True},
    ]
    for fields in settings:
        stream = broker.stream(broker.subscription(topic, **fields))
        broker.publish(topic, b"x")

        wait_until(lambda: stream.received)  # noqa: B023  # awaited here

        properties = stream.responses[0].subscription_properties
        shown = properties.exactly_once_delivery_enabled, properties.message_ordering_enabled
        assert shown == tuple(fields.values())


def test_exactly_once_confirms_over_the_stream(broker: Broker, topic: str) -> None:
    """The next response lists acknowledged and refused ack ids."""
    broker.needs("is_ours", "not guaranteed to be populated")
    subscription = broker.subscription(topic, enable_exactly_once_delivery=True)
    stream = broker.stream(subscription)
    broker.publish(topic, b"x")
    wait_until(lambda: stream.received)

    stream.acknowledge(stream.received)
    stream.acknowledge(stream.received)

    ack_id = stream.received[0].ack_id
    wait_until(
        lambda: any(r.acknowledge_confirmation.invalid_ack_ids for r in stream.responses),
        what="a refusal",
    )
    assert [list(r.acknowledge_confirmation.ack_ids) for r in stream.responses[1:2]] == [[ack_id]]
