"""kombu's side: direct, fanout and topic exchanges, transient queues, one control subscription."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import ChannelError
from kombu.utils.uuid import uuid

from convotic_pubsub.errors import OptionError
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.pubsub import make_spec, unique
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import Connect, MakeHarness


def collect(got: list[Any], body: Any, _message: Any) -> None:
    got.append(body)


def receive(connection: Any, got: list[Any], count: int) -> None:
    def drain() -> bool:
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=0.05)
        return len(got) >= count

    wait_until(drain)


def test_a_direct_queue_carries_text_and_binary_bodies(connect: Connect) -> None:
    """An ordinary queue: JSON and pickle bodies, headers and priority arrive as they were sent."""
    connection = connect()
    queue = Queue("jobs", Exchange("jobs"), routing_key="jobs", channel=connection.channel())
    queue.declare()
    got: list[Any] = []
    consumer = connection.Consumer([queue], accept=["json", "pickle"])

    def handle(body: Any, message: Any) -> None:
        got.append((body, message.headers.get("h"), message.properties))
        message.ack()

    consumer.register_callback(handle)
    consumer.consume()

    producer = connection.Producer()
    producer.publish({"é": 1}, exchange="jobs", routing_key="jobs", headers={"h": 1}, priority=7)
    producer.publish({"b": {1, 2}}, serializer="pickle", routing_key="jobs")
    receive(connection, got, 2)

    assert {str(body) for body, _, _ in got} == {"{'é': 1}", "{'b': {1, 2}}"}
    assert [properties["priority"] for _, header, properties in got if header == 1] == [7]


def test_draining_hands_over_one_message_a_call(connect: Connect) -> None:
    """kombu counts the calls: who collects two answers drains twice, and both may be there."""
    connection = connect()
    queue = Queue("pairs", Exchange("pairs"), routing_key="pairs", channel=connection.channel())
    queue.declare()
    got: list[Any] = []
    consumer = connection.Consumer([queue], callbacks=[partial(collect, got)], no_ack=True)
    with consumer, connection.Producer() as producer:
        for number in (1, 2):
            producer.publish({"n": number}, exchange="pairs", routing_key="pairs")
        wait_until(lambda: len(connection.transport.inbox) == 2)

        connection.drain_events(timeout=1)
        assert len(got) == 1

        connection.drain_events(timeout=1)
        assert len(got) == 2


def test_a_fanout_reaches_the_queues_of_every_session(connect: Connect) -> None:
    """Two processes' worth of sessions: each bound queue gets its copy."""
    one, two = connect(), connect(visibility_timeout_seconds=61)
    exchange = Exchange("news", type="fanout", durable=False)
    got: dict[str, list[Any]] = {"one": [], "two": []}
    for name, connection in (("one", one), ("two", two)):
        queue = Queue(f"news.{name}", exchange, auto_delete=True)
        consumer = connection.Consumer(queue, no_ack=True)
        consumer.register_callback(partial(collect, got[name]))
        consumer.consume()

    one.Producer().publish({"n": 1}, exchange=exchange, declare=[exchange])
    receive(one, got["one"], 1)
    receive(two, got["two"], 1)

    assert got == {"one": [{"n": 1}], "two": [{"n": 1}]}


def test_a_topic_exchange_matches_words(connect: Connect) -> None:
    """``worker.#`` gets worker.heartbeat and not task.sent; the key arrives with the message."""
    one, two = connect(), connect(visibility_timeout_seconds=61)
    exchange = Exchange("celeryev", type="topic")
    got: list[Any] = []
    queue = Queue(f"monitor.{uuid()}", exchange, routing_key="worker.#", auto_delete=True)
    consumer = two.Consumer(queue, no_ack=True)
    consumer.register_callback(
        lambda _body, message: got.append(message.delivery_info["routing_key"])
    )
    consumer.consume()

    producer = one.Producer(exchange=exchange)
    producer.publish({}, routing_key="task.sent")
    producer.publish({}, routing_key="worker.heartbeat")
    receive(two, got, 1)

    assert got == ["worker.heartbeat"]


def test_a_reply_queue_of_another_process_is_found(connect: Connect) -> None:
    """The anonymous exchange reaches a transient queue that only the other session knows."""
    one, two = connect(), connect(visibility_timeout_seconds=61)
    name = str(uuid())
    queue: Any = Queue(name, auto_delete=True, channel=two.channel())
    queue.declare()

    one.Producer().publish({"answer": 42}, routing_key=name)
    message = wait_until(lambda: queue.get(no_ack=True))

    assert message.payload == {"answer": 42}


def test_closing_a_session_deletes_its_control_subscription(
    connect: Connect,
) -> None:
    """Nothing of a process's transient queues is left with the server."""
    connection = connect()
    Queue(f"reply.{uuid()}", auto_delete=True, channel=connection.channel()).declare()
    session = connection.transport.session
    spec = session.transient.subscriptions["control"].spec
    other = connect(visibility_timeout_seconds=61).transport.session
    assert other.resources.exists(spec)

    session.close()

    assert not other.resources.exists(spec)


def test_passive_declare_and_purge(connect: Connect) -> None:
    """A queue that is not there is a 404; purge says how many it removed and ends at 0."""
    channel = connect().channel()
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        channel.queue_declare("never-made", passive=True)

    channel.queue_declare("to-purge")
    for number in range(5):
        channel.basic_publish(channel.prepare_message(str(number)), "", "to-purge")

    assert channel.queue_purge("to-purge") == 5
    assert channel.queue_purge("to-purge") == 0
    channel.queue_declare("to-purge", passive=True)


def test_a_message_that_is_no_celery_message_is_dead_lettered(connect: Connect) -> None:
    """A foreign message in an ordinary queue neither loops nor vanishes."""
    connection = connect()
    session = connection.transport.session
    consumer = connection.Consumer(Queue("mixed", channel=connection.channel()), accept=["json"])
    consumer.consume()

    session.publish(OutgoingMessage(session.spec("mixed").topic, b"not json")).result(PATIENCE)
    wait_until(lambda: session.dead_lettered["mixed"] == 1)
    session.flush()

    assert not session.outstanding


def test_an_unknown_option_is_named(connect: Connect) -> None:
    """A typo in the transport options is an error that suggests the right word."""
    with pytest.raises(OptionError, match="did you mean 'provision'"):
        connect(provison="create")


def test_drift_is_said_and_an_unchangeable_difference_is_an_error(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """What exists with other settings is left alone; another topic can't be meant."""
    from dataclasses import replace  # noqa: PLC0415

    from convotic_pubsub.errors import SubscriptionMismatch  # noqa: PLC0415

    spec = make_spec(ack_deadline_seconds=30)
    harness(broker, spec)
    longer = replace(spec, ack_deadline_seconds=60)
    harness(broker, longer)
    assert any(getattr(each, "action", "") == "subscription_drift" for each in caplog.records)

    elsewhere = replace(spec, topic=unique("other"))
    with pytest.raises(SubscriptionMismatch, match="topic is"):
        harness(broker, elsewhere)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_priority": 10},
        {"queue_arguments": {"x-max-priority": 10}},
        {"message_ttl": 5.0},
        {"max_length": 5},
    ],
)
def test_a_queue_that_pubsub_has_not_is_refused(connect: Connect, arguments: Any) -> None:
    """Priorities, a time to live and a longest length would be dropped without a word."""
    queue = Queue("urgent", channel=connect().channel(), **arguments)

    with pytest.raises(OptionError, match="'urgent' can't have"):
        queue.declare()
