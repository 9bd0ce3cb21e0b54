"""Messages that another thread than the connection's loop hands over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.errors import BrokerUnavailable
from tests.support.pubsub import make_spec
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from convotic_pubsub.kombu.channel import QueuedMessage
    from tests.integration.pubsub.conftest import MakeHarness
    from tests.support.pubsub import Harness


class Inbox:
    """Collects what arrives, or refuses it."""

    def __init__(self) -> None:
        self.queued: list[QueuedMessage] = []
        self.refuses = False

    def put(self, queued: QueuedMessage) -> bool:
        self.queued.append(queued)
        return not self.refuses


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread, by the name of other_0."""
    with ThreadPoolExecutor(1, "other") as executor:
        yield executor


def consume_by(one: Harness, inbox: Inbox) -> Any:
    """Consume a harness's queue by an inbox; return the channel."""
    one.consume()
    assert one._consumer is not None
    channel: Any = one._consumer.channel
    channel.redirect(one.spec.queue, inbox.put)
    return channel


def test_the_thread_that_hands_over_runs_the_consumer(
    broker: str, harness: MakeHarness, other: ThreadPoolExecutor
) -> None:
    """The connection's loop gets nothing; what is acknowledged there is settled as ever."""
    one, inbox, threads = harness(broker, make_spec()), Inbox(), []
    consume_by(one, inbox)

    def handle(message: Any) -> None:
        threads.append(threading.current_thread().name)
        message.ack()

    one.on_message = handle
    one.publish("one")
    wait_until(lambda: inbox.queued)
    with pytest.raises(TimeoutError):
        one.connection.drain_events(timeout=0.1)

    other.submit(inbox.queued[0].deliver).result(PATIENCE)

    assert one.bodies == ["one"]
    assert threads == ["other_0"]
    wait_until(lambda: not one.session.outstanding)


def test_what_an_inbox_refuses_is_the_loop_s(broker: str, harness: MakeHarness) -> None:
    """It says so for each message."""
    one, inbox = harness(broker, make_spec()), Inbox()
    consume_by(one, inbox)
    inbox.refuses = True

    one.publish("one")
    one.drain_until(lambda: one.bodies == ["one"])

    assert len(inbox.queued) == 1


def test_with_a_prefetch_count_no_inbox_is_asked(broker: str, harness: MakeHarness) -> None:
    """Two threads could hand over more than it allows."""
    one, inbox = harness(broker, make_spec()), Inbox()
    consume_by(one, inbox).basic_qos(0, 1)

    one.publish("one")
    one.drain_until(lambda: one.bodies == ["one"])

    assert not inbox.queued


def test_a_stopping_connection_hands_over_nothing(broker: str, harness: MakeHarness) -> None:
    """What waits in an inbox is given back, and the next consumer has it at once."""
    spec = make_spec()
    one, inbox = harness(broker, spec), Inbox()
    consume_by(one, inbox)
    one.publish("one")
    wait_until(lambda: inbox.queued)

    one.connection.transport._stop()
    inbox.queued[0].deliver()
    assert one.messages == []
    one.close()

    two = harness(broker, spec)
    two.consume()
    two.drain_until(lambda: two.bodies == ["one"])


def test_a_cancelled_consumer_s_message_is_not_handed_over(
    broker: str, harness: MakeHarness
) -> None:
    """It was given back with all that waited."""
    one, inbox = harness(broker, make_spec()), Inbox()
    consume_by(one, inbox)
    one.publish("one")
    wait_until(lambda: inbox.queued)

    one.cancel()
    inbox.queued[0].deliver()

    assert one.messages == []
    one.consume()
    one.drain_until(lambda: one.bodies == ["one"])


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ValueError("no good")])
def test_an_error_of_the_consumer_costs_no_message(
    broker: str, harness: MakeHarness, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A broker's gives it back, any other to the dead-letter topic; the caller goes on."""
    one, inbox = harness(broker, make_spec()), Inbox()
    consume_by(one, inbox)

    def fail(_message: Any) -> None:
        raise error

    one.on_message = fail
    one.publish("one")
    wait_until(lambda: inbox.queued)

    with caplog.at_level(logging.WARNING, "convotic_pubsub"):
        inbox.queued[0].deliver()

    if isinstance(error, BrokerUnavailable):
        assert "was not taken: away" in caplog.text
        wait_until(lambda: len(inbox.queued) == 2)
    else:
        wait_until(lambda: [m.message.data for m in one.dead_letters()] == [b'"one"'])
