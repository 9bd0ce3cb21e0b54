"""An ordinary task is dead-lettered for its runs, not for deliveries that never became one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kombu import Consumer, Queue

from tests.integration.pubsub.conftest import Connect
from tests.support.pubsub import pull
from tests.support.waiting import wait_until


def test_a_task_that_is_not_due_outlives_any_number_of_workers(connect: Connect) -> None:
    """Each worker that ends while it waits is a delivery; long before the last it is sent again."""
    connection = connect(max_delivery_attempts=6)
    session = connection.transport.session
    queue = Queue("later", channel=connection.channel())
    queue.declare()
    due = datetime.now(UTC) + timedelta(hours=1)
    headers = {"task": "t", "id": "i", "eta": due.isoformat()}
    connection.Producer().publish([[], {}, {}], routing_key="later", headers=headers)
    path = f"projects/test-project/subscriptions/{session.options.prefix}later"

    async def give_back(ack_id: str) -> None:
        await session.broker.rpc.modify_ack_deadline(path, [ack_id], 0)

    def lose(attempt: int) -> bool:
        for received in pull(session, f"{session.options.prefix}later"):
            session.call(give_back(received.ack_id))
            return bool(received.delivery_attempt >= attempt)
        return False

    for attempt in (1, 2):
        wait_until(lambda a=attempt: lose(a))  # type: ignore[misc]  # mypy does not infer a lambda with a default
    channel = connection.channel()
    Consumer(channel, [queue.bind(channel)], on_message=print, auto_declare=False).consume()

    def is_fresh() -> bool:
        held = list(session.outstanding.values())
        return [each.received.delivery_attempt for each in held] == [1]

    wait_until(is_fresh, what="a copy whose deliveries count from one")
    assert not session.dead_lettered
    assert list(pull(session, f"{session.options.prefix}later.dead-letter")) == []
