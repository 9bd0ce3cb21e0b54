"""Ordering keys."""

from __future__ import annotations

from tests.conformance.broker import LONG_LEASE_SECONDS, Broker, bodies
from tests.support.waiting import never, wait_until


def ordered(broker: Broker, topic: str) -> str:
    return broker.subscription(
        topic, enable_message_ordering=True, ack_deadline_seconds=LONG_LEASE_SECONDS
    )


def test_one_key_waits_while_the_other_goes_on(broker: Broker, topic: str) -> None:
    """The next message of a key is withheld while an earlier one is outstanding."""
    subscription = ordered(broker, topic)
    broker.publish(topic, b"a1", ordering_key="a")
    first = broker.pull(subscription)
    broker.publish(topic, b"a2", ordering_key="a")
    broker.publish(topic, b"b1", ordering_key="b")

    assert bodies(broker.pull(subscription)) == [b"b1"]
    never(lambda: broker.pull_now(subscription), for_=0.2)

    broker.acknowledge(subscription, first)
    assert bodies(broker.pull(subscription)) == [b"a2"]


def test_messages_of_a_key_come_in_order(broker: Broker, topic: str) -> None:
    """Over several pulls."""
    subscription = ordered(broker, topic)
    sent = [b"%d" % n for n in range(20)]
    for body in sent:
        broker.publish(topic, body, ordering_key="k")

    received: list[bytes] = []
    while len(received) < len(sent):
        messages = broker.pull(subscription, limit=3)
        received += bodies(messages)
        broker.acknowledge(subscription, messages)

    assert received == sent


def test_a_nack_repeats_the_key_from_there(broker: Broker, topic: str) -> None:
    """Redelivery of one message repeats the later ones, acknowledged or not."""
    broker.needs("ordered_redelivery", "an acknowledgement out of order stops the key")
    subscription = ordered(broker, topic)
    broker.publish(topic, b"1", b"2", b"3", ordering_key="k")
    received = broker.pull_all(subscription, 3)
    broker.acknowledge(subscription, received[:1])
    broker.acknowledge(subscription, received[2:])

    broker.modify(subscription, received[1:2], 0)

    again = wait_until(lambda: broker.pull_now(subscription))
    assert bodies(again) == [b"2", b"3"]


def test_a_key_does_not_wait_for_acknowledgements_on_its_stream(broker: Broker, topic: str) -> None:
    """However many streams are open, the one that has a key gets what follows of it, in order."""
    broker.needs("ordered_affinity", "a stream waits for acknowledgements of the key")
    subscription = ordered(broker, topic)
    streams = [
        broker.stream(subscription, stream_ack_deadline_seconds=LONG_LEASE_SECONDS)
        for _ in range(5)
    ]
    sent = [b"%d" % n for n in range(20)]
    for body in sent:
        broker.publish(topic, body, ordering_key="k")

    wait_until(lambda: sum(len(stream.received) for stream in streams) == len(sent))

    [holder] = [stream for stream in streams if stream.received]
    assert bodies(holder.received) == sent
