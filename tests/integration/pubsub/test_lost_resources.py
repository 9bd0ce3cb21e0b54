"""What somebody deletes, or an emulator loses, under a running process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Queue
from kombu.utils.uuid import uuid

from convotic_emulator.testing import EmulatorThread
from convotic_pubsub.errors import PublishError, SubscriptionMismatch
from tests.support.pubsub import make_spec, pull_all
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from convotic_pubsub.session import Session
    from tests.integration.pubsub.conftest import Connect, MakeHarness
    from tests.support.pubsub import Harness


def publish(connection: Any, queue: str, text: str) -> None:
    """Publish to a queue as Celery does: by its name, on the anonymous exchange."""
    channel = connection.default_channel
    channel.basic_publish(channel.prepare_message(text), "", queue)


def both_bodies(session: Session, queue: str) -> list[str]:
    """Return which messages of a queue wait with the server, once there are two."""
    waiting = pull_all(session, session.spec(queue).subscription, 2)
    return [text for each in waiting for text in ("one", "two") if text in str(each.message.data)]


def delete_topic(session: Session, queue: str) -> None:
    """Delete the topic alone; the subscription stays."""

    async def call() -> None:
        path = f"projects/test-project/topics/{session.spec(queue).topic}"
        await session.broker.rpc.delete_topic(path)

    session.call(call())


def test_a_queue_that_was_deleted_is_recreated_by_the_next_publisher(connect: Connect) -> None:
    """Its producer goes on for months after a purge of the project: no task may vanish."""
    connection = connect()
    session = connection.transport.session
    connection.default_channel.queue_declare("jobs")
    session.resources.delete(session.spec("jobs"))

    publish(connection, "jobs", "one")
    publish(connection, "jobs", "two")

    assert sorted(both_bodies(session, "jobs")) == ["one", "two"]


def test_a_lost_queue_that_may_not_be_made_is_an_error(connect: Connect) -> None:
    """``provision=verify``: the caller hears of each task that is not sent."""
    owner = connect()
    owner.default_channel.queue_declare("jobs")
    connection = connect(provision="verify")
    connection.default_channel.queue_declare("jobs")
    session = owner.transport.session
    session.resources.delete(session.spec("jobs"))

    for _ in range(2):
        with pytest.raises(PublishError, match=r"topics/p-.*jobs does not exist"):
            publish(connection, "jobs", "one")


def test_a_topic_is_not_made_again_where_its_subscription_is_of_the_deleted_one(
    connect: Connect,
) -> None:
    """What is published there would reach no subscription; each publish says so."""
    connection = connect()
    session = connection.transport.session
    connection.default_channel.queue_declare("jobs")
    delete_topic(session, "jobs")

    for _ in range(2):
        with pytest.raises(SubscriptionMismatch, match="_deleted-topic_"):
            publish(connection, "jobs", "one")


def test_what_is_published_before_its_queue_exists_is_kept_for_it(connect: Connect) -> None:
    """Nothing of a producer that is there before the first worker is lost, then or later."""
    early = connect()
    publish(early, "jobs", "one")
    worker = connect(visibility_timeout_seconds=61)
    worker.default_channel.queue_declare("jobs")
    publish(early, "jobs", "two")

    assert sorted(both_bodies(worker.transport.session, "jobs")) == ["one", "two"]


@pytest.mark.parametrize("provision", ["create", "verify", "off"])
def test_a_deleted_control_subscription_is_made_again(connect: Connect, provision: str) -> None:
    """Whatever ``provision`` says: a worker must not be deaf to remote control for good."""
    connection = connect(provision=provision)
    Queue(f"reply.{uuid()}", auto_delete=True, channel=connection.channel()).declare()
    session = connection.transport.session
    spec = session.transient.subscriptions["control"].spec

    session.resources.delete_subscription(spec.subscription)

    assert wait_until(lambda: session.resources.exists(spec))


def test_all_queues_follow_an_emulator_that_moves(harness: MakeHarness) -> None:
    """It is restarted at another address: each queue pulls there, no channel is overfull."""
    with EmulatorThread() as old, EmulatorThread() as new:
        addresses = [old.address]
        find = partial(addresses.__getitem__, 0)  # one callable, so one session
        specs = [make_spec() for _ in range(3)]
        queues = {spec.queue: spec for spec in specs}
        all_of_them = [harness(find, spec, queues=queues) for spec in specs]
        for each in all_of_them:
            each.on_message = lambda message: message.ack()
            each.consume()
            each.publish(1)
            each.drain_until(partial(len, each.messages))
        session = all_of_them[0].session

        addresses[0] = new.address
        old.faults.drop_streams()
        wait_until(lambda: session.broker.address == new.address)
        for each in all_of_them:
            wait_until(partial(session.resources.exists, each.spec))
            each.publish(2)
            each.drain_until(partial(has_both, each))

        wait_until(lambda: [channel.users for channel in session.broker.channels._pulls] == [3])
        session.flush()  # while there is somebody to confirm


def has_both(one: Harness) -> bool:
    return one.bodies == [1, 2]
