"""Dead letters of ordinary Celery tasks."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest

from convotic_celery.dead_letters import DeadLetter, Match
from convotic_celery.errors import InvalidMessage
from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.queue import Received
from tests.integration.dead_letters.conftest import CRM, Desk

QUEUE = "celery"


def reject(desk: Desk, task: str, *, indexed: bool, first_id: str = "") -> None:
    """Put a task's message into its dead-letter topic, as a worker does that rejects it."""
    spec = desk.app._queue_specs[QUEUE]
    desk.session.resources.ensure(spec)
    task_id = str(uuid.uuid4())
    body = json.dumps([[1], {}, {}])
    head = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": task_id},
        "properties": {"delivery_info": {}, "correlation_id": task_id},
    }
    data = json.dumps(head).encode()
    first = {"convotic-message-id": first_id, "convotic-replay-count": "1"} if first_id else {}
    attributes = first | {
        "convotic-dead-letter-reason": "rejected",
        "convotic-dead-letter-message-id": "77",
        "convotic-dead-letter-subscription": QUEUE,
    }
    dead_id = desk.session.publish_confirmed(
        OutgoingMessage(spec.dead_letter_topic, data, attributes)
    )
    if indexed:
        assert spec.on_dead_letter is not None
        received = Received(QUEUE, "77", data, {}, "", datetime.now(UTC), 1)
        spec.on_dead_letter(received, attributes, dead_id)
        desk.app._recorder.flush()


@pytest.mark.parametrize("indexed", [True, False])
def test_a_tasks_dead_letter_is_listed_and_replayed(desk: Desk, indexed: bool) -> None:
    """A worker of the framework's app indexes it, ``sync`` takes others in; a group is a task."""
    reject(desk, "reports.monthly", indexed=indexed)
    if not indexed:
        (report,) = [each for each in desk.dead_letters.sync() if each.handler == QUEUE]
        assert report.taken_in == 1

    (found,) = desk.dead_letters.list(Match(handler=QUEUE)).items
    assert (found.reason, found.error_message) == ("rejected", "task reports.monthly")
    job = desk.dead_letters.replay(Match(handler=QUEUE), by="ada")

    assert (job.done, job.collected, job.warnings) == (1, 1, ())
    with desk.session.resources.inspect(QUEUE) as inspection:
        (seen,) = inspection.pull(10)
        inspection.acknowledge([seen.ack_id])
    assert decode_envelope(seen.received.data)["headers"]["task"] == "reports.monthly"
    reject(desk, "reports.monthly", indexed=True, first_id="77")
    again: DeadLetter = desk.dead_letters.show(found.id)
    assert (again.state, again.failed_again) == ("open", 1)


def test_what_a_task_cannot_do(desk: Desk) -> None:
    """No handler takes its message, and only a task's message can take its place."""
    reject(desk, "reports.monthly", indexed=True)

    job = desk.dead_letters.redirect(Match(handler=QUEUE), CRM, by="ada")

    assert (job.done, job.skipped) == (0, 1)
    entry = desk.dead_letters.list(Match(handler=QUEUE)).items[0].id
    with pytest.raises(InvalidMessage, match="no task message"):
        desk.dead_letters.edit(entry, b'{"id": 1}', by="ada")
