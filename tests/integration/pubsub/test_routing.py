"""Exchanges: what any process binds, every publisher finds; nothing is lost silently."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import ChannelError

from convotic_pubsub.celery.routing import Binding, binding_id, read_binding
from convotic_pubsub.errors import OptionError, PublishError
from tests.support.pubsub import pull
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.pubsub.conftest import Connect

#: kombu's exchange, the queue's key, and the message's.
CASES = [("direct", "img", "img"), ("topic", "img.#", "img.png"), ("fanout", "", "whatever")]


def declare(connection: Any, queue: Queue) -> None:
    queue(connection.channel()).declare()


def bodies(connection: Any, queue: str, count: int) -> list[Any]:
    """Take so many messages of a queue."""
    found: list[Any] = []
    bound = Queue(queue)(connection.channel())

    def take() -> bool:
        message = bound.get(no_ack=True)
        if message is not None:
            found.append(message.payload)
        return len(found) >= count

    wait_until(take)
    return found


@pytest.mark.parametrize(("kind", "key", "routing_key"), CASES)
def test_a_queue_gets_what_another_process_publishes_to_its_exchange(
    connect: Connect, kind: str, key: str, routing_key: str
) -> None:
    """The publisher has declared nothing: it finds the binding on the server."""
    worker, publisher = connect(), connect(visibility_timeout_seconds=61)
    exchange = Exchange("x", type=kind)
    declare(worker, Queue("images", exchange, routing_key=key))
    declare(worker, Queue("copies", exchange, routing_key=key))

    for number in range(3):
        publisher.Producer().publish({"n": number}, exchange="x", routing_key=routing_key)

    for queue in ("images", "copies"):
        assert {body["n"] for body in bodies(worker, queue, 3)} == {0, 1, 2}


def test_a_durable_queue_gets_what_its_own_process_sends_to_a_fanout(connect: Connect) -> None:
    """Also from the declaring process, and once."""
    connection = connect()
    exchange = Exchange("news", type="fanout")
    declare(connection, Queue("archive", exchange))

    connection.Producer().publish({"n": 1}, exchange=exchange)

    assert bodies(connection, "archive", 1) == [{"n": 1}]
    assert connection.default_channel.queue_purge("archive") == 0


@pytest.mark.parametrize("declared", [False, True])
def test_what_no_queue_gets_is_refused(connect: Connect, *, declared: bool) -> None:
    """The message would be lost; the error says with which exchange and key."""
    connection = connect()
    declare(connection, Queue("images", Exchange("x", type="topic"), routing_key="img.#"))
    publisher = connect(visibility_timeout_seconds=61)
    exchange: Any = Exchange("x", type="topic") if declared else "x"

    with pytest.raises(PublishError, match=r"'x': no queue is bound .* 'doc\.txt'"):
        publisher.Producer().publish({}, exchange=exchange, routing_key="doc.txt")


def test_a_binding_that_is_made_later_is_found_at_once(connect: Connect) -> None:
    """Who was refused asks the server again, at each try."""
    publisher, worker = connect(), connect(visibility_timeout_seconds=61)
    with pytest.raises(PublishError):
        publisher.Producer().publish({}, exchange="late", routing_key="k")

    declare(worker, Queue("late-queue", Exchange("late", type="direct"), routing_key="k"))
    publisher.Producer().publish({"n": 1}, exchange="late", routing_key="k")

    assert bodies(worker, "late-queue", 1) == [{"n": 1}]


def test_a_binding_is_undone_for_every_process(connect: Connect) -> None:
    """By unbinding, and with its queue."""
    worker, publisher = connect(), connect(visibility_timeout_seconds=61)
    exchange = Exchange("x", type="direct")
    queues = [Queue(name, exchange, routing_key=name[0])(worker.channel()) for name in ("a1", "b1")]
    for queue in queues:
        queue.declare()

    queues[0].unbind_from(exchange, routing_key="a")
    queues[1].delete()

    for key in ("a", "b"):
        with pytest.raises(PublishError, match="no queue is bound"):
            publisher.Producer().publish({}, exchange="x", routing_key=key)


def test_an_exchange_with_listeners_of_other_processes_only_is_not_refused(
    connect: Connect,
) -> None:
    """A broadcast's publisher knows neither its kind nor its queues."""
    worker, publisher = connect(), connect(visibility_timeout_seconds=61)
    queue = Queue(f"bcast.{uuid.uuid4()}", Exchange("orders", type="fanout"), auto_delete=True)
    declare(worker, queue)

    publisher.Producer().publish({"n": 1}, exchange="orders", routing_key="")

    assert bodies(worker, queue.name, 1) == [{"n": 1}]


@pytest.mark.parametrize("option", ["auto_delete", "exclusive"])
def test_a_queue_with_a_name_of_its_own_is_shared_and_kept(connect: Connect, option: str) -> None:
    """Two workers share it, each message once; what is sent before a worker is up stays."""
    early = connect()
    options: Any = {option: True}
    declare(early, Queue("shared", **options))
    early.Producer().publish({"n": 0}, routing_key="shared")
    workers = [connect(visibility_timeout_seconds=seconds) for seconds in (61, 62)]
    for worker in workers:
        declare(worker, Queue("shared", **options))

    early.Producer().publish({"n": 1}, routing_key="shared")

    taken = [bodies(worker, "shared", 1) for worker in workers]
    assert sorted(body["n"] for found in taken for body in found) == [0, 1]
    assert early.default_channel.queue_purge("shared") == 0


def test_a_forked_child_finds_bindings_too(connect: Connect) -> None:
    """Its parent looks for them; and what a child binds, others find."""
    connection, other = connect(), connect(visibility_timeout_seconds=61)
    declare(other, Queue("images", Exchange("x", type="topic"), routing_key="img.#"))

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            connection.Producer().publish({"n": 1}, exchange="x", routing_key="img.png")
            declare(connection, Queue("docs", Exchange("x", type="topic"), routing_key="doc.*"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    other.Producer().publish({"n": 2}, exchange="x", routing_key="doc.txt")

    assert bodies(other, "images", 1) == [{"n": 1}]
    assert bodies(other, "docs", 1) == [{"n": 2}]


def test_other_exchange_types_are_refused(connect: Connect) -> None:
    """A headers exchange would be taken for a direct one."""
    with pytest.raises(ChannelError, match="'headers' is not supported"):
        Exchange("h", type="headers")(connect().channel()).declare()


def test_a_message_without_a_routing_key_is_refused(connect: Connect) -> None:
    """The anonymous exchange needs a queue's name."""
    with pytest.raises(PublishError, match="no routing key"):
        connect().Producer().publish({})


@pytest.mark.parametrize(
    "binding",
    [
        Binding("x", "topic", "img", "img.#"),
        Binding("ä ~%", "direct", "q~1", "*.é~"),
        Binding("", "fanout", "", ""),
    ],
)
def test_a_bindings_name_tells_all(binding: Binding) -> None:
    """Whatever characters exchange, queue and key are made of."""
    for prefix in ("", "p-", "1~", "goog"):
        assert read_binding(binding_id(binding, prefix)) == binding


def test_a_binding_that_is_too_long_is_refused() -> None:
    """A subscription's name has 255 characters; a cut one could not be read."""
    with pytest.raises(OptionError, match="binding of queue"):
        binding_id(Binding("x" * 100, "topic", "q" * 100, "k" * 100), "")


def test_a_redelivery_by_another_process_is_known(broker: str, connect: Connect) -> None:
    """The service counts for an ordinary queue too: Celery's deduplication looks at the flag."""
    first, second = connect(visibility_timeout_seconds=10), connect(visibility_timeout_seconds=11)
    seen: list[Any] = []
    declare(first, Queue("jobs"))
    first.Producer().publish({"n": 1}, routing_key="jobs")
    message: Any = wait_until(lambda: Queue("jobs")(first.channel()).get())
    seen.append(message.delivery_info.get("redelivered", False))

    message.reject(requeue=True)
    bound = Queue("jobs")(second.channel())
    again: Any = wait_until(bound.get)
    seen.append(again.delivery_info.get("redelivered", False))
    again.ack()

    assert broker
    assert seen == [False, True]


def test_an_ordinary_message_has_a_limit_of_deliveries(our_emulator: str, connect: Connect) -> None:
    """A task that takes its worker down each time ends as a dead letter, and the queue goes on."""
    connection = connect(emulator_host=our_emulator, max_delivery_attempts=5)
    declare(connection, Queue("jobs"))
    connection.Producer().publish({"n": 1}, routing_key="jobs")
    runs: list[Any] = []

    def run(_body: Any, message: Any) -> None:
        runs.append(message)
        message.reject(requeue=True)

    def is_dead() -> bool:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.2)
        prefix = connection.transport.session.options.prefix
        return bool(list(pull(connection.transport.session, f"{prefix}jobs.dead-letter")))

    with connection.Consumer([Queue("jobs")], callbacks=[run]):
        assert wait_until(is_dead)

    assert len(runs) == 5
