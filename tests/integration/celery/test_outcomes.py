"""What becomes of an ordinary task and its message: each row of the table in docs/transport.md."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import chord, group
from celery.exceptions import TaskRevokedError

from convotic_pubsub.celery.codec import decode_envelope
from convotic_pubsub.outgoing import OutgoingMessage
from tests.support.pubsub import acknowledge, pull
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.integration.celery.conftest import Plain

pytestmark = [pytest.mark.usefixtures("worker")]


def dead_letter(plain: Plain, of: str) -> Any:
    """Wait for the dead letter whose data has the text ``of``.

    All that come before it are acknowledged and kept for later calls: no lease has to lapse.
    """
    name = f"{plain.prefix}celery.dead-letter"
    found = _dead_letters.setdefault(name, [])

    def find() -> Any:
        if received := list(pull(plain.session, name)):
            acknowledge(plain.session, name, [one.ack_id for one in received])
            found.extend(one.message for one in received)
        return next((message for message in found if of in message.data.decode()), None)

    return wait_until(find, what=f"a dead letter with {of}")


#: All that were pulled, by subscription.
_dead_letters: dict[str, list[Any]] = {}


def is_empty(plain: Plain) -> bool:
    """Say whether nothing of the queue is left with the server."""
    return not list(pull(plain.session, f"{plain.prefix}celery"))


def test_success_and_exception_are_acknowledged(plain: Plain) -> None:
    """SUCCESS and FAILURE both end the message, as with any broker."""
    done, failed = plain.send("add", 1, 2), plain.send("fail")

    assert done.get(timeout=PATIENCE) == 3
    assert str(failed.get(timeout=PATIENCE, propagate=False)) == "as asked"
    assert is_empty(plain)


def test_reject_is_a_failure_and_a_dead_letter(plain: Plain) -> None:
    """``Reject(requeue=False)`` keeps the message, with the reason."""
    result = plain.send("reject")

    message = dead_letter(plain, result.id)

    assert message.attributes["convotic-dead-letter-reason"] == "rejected"
    assert wait_until(lambda: result.state == "FAILURE", timeout=PATIENCE)


def test_requeue_delivers_again_at_once_and_says_so(plain: Plain) -> None:
    """``Reject(requeue=True)``: the second run sees ``redelivered``."""
    assert plain.send("reject", True).get(timeout=PATIENCE) == "again"


def test_ignore_ends_the_message_and_leaves_the_state(plain: Plain) -> None:
    """``Ignore`` is acknowledged; nothing is stored."""
    result = plain.send("ignore")
    plain.send("add", 1, 1).get(timeout=PATIENCE)

    assert result.state in ("PENDING", "STARTED")
    wait_until(lambda: is_empty(plain), timeout=PATIENCE)


def test_self_retry_runs_again(plain: Plain) -> None:
    """``self.retry()`` sends the task again, from a forked child."""
    assert plain.send("retry").get(timeout=PATIENCE) == 2


def test_an_unknown_task_is_a_dead_letter(plain: Plain) -> None:
    """A task that no module has: FAILURE, and the message is kept."""
    result = plain.send("no_such_task")

    message = dead_letter(plain, result.id)

    assert decode_envelope(message.data)["headers"]["task"] == "plain.no_such_task"
    assert wait_until(lambda: result.state == "FAILURE", timeout=PATIENCE)


def test_an_undecodable_body_is_a_dead_letter(plain: Plain) -> None:
    """Data that is no envelope, or an envelope that is no task: kept, and the worker goes on."""
    one, two = uuid.uuid4().hex, uuid.uuid4().hex
    session = plain.session
    session.publish(OutgoingMessage(f"{plain.prefix}celery", one.encode())).result(PATIENCE)
    strange = {"body": two, "headers": {}, "properties": {}, "content-type": "application/json"}
    session.publish(OutgoingMessage(f"{plain.prefix}celery", json.dumps(strange).encode())).result(
        PATIENCE
    )

    three = uuid.uuid4().hex
    foreign = {
        **strange,
        "body": three,
        "headers": {"task": "plain.add", "id": three},
        "content-type": "application/x-nobody",
        "content-encoding": "utf-8",
    }
    session.publish(OutgoingMessage(f"{plain.prefix}celery", json.dumps(foreign).encode())).result(
        PATIENCE
    )

    assert dead_letter(plain, one).attributes["convotic-dead-letter-reason"] == "invalid"
    assert dead_letter(plain, two)
    assert dead_letter(plain, three).attributes["convotic-dead-letter-reason"] == "invalid"
    assert plain.send("add", 2, 2).get(timeout=PATIENCE) == 4


def test_time_limits_and_a_lost_child_are_failures(plain: Plain) -> None:
    """As Celery's defaults say: FAILURE, acknowledged; the pool has new children."""
    stopped = plain.send("hang", soft_time_limit=1)
    hung = plain.send("hang", time_limit=1)
    dead = plain.send("die")

    assert "SoftTimeLimitExceeded" in repr(stopped.get(timeout=PATIENCE, propagate=False))
    assert "TimeLimitExceeded" in repr(hung.get(timeout=PATIENCE, propagate=False))
    assert "WorkerLostError" in repr(dead.get(timeout=PATIENCE, propagate=False))
    assert [plain.send("retry").get(timeout=PATIENCE) for _ in range(3)] == [2, 2, 2]
    wait_until(lambda: is_empty(plain), timeout=PATIENCE)


def test_revoked_and_expired_tasks_do_not_run(plain: Plain) -> None:
    """Both end as REVOKED, and their messages with them."""
    identity = uuid.uuid4().hex
    # Before it is sent: else it may run before the worker hears of it.
    assert plain.app.control.revoke(identity, reply=True, timeout=PATIENCE, limit=1)
    revoked = plain.send("add", 1, 1, task_id=identity)
    expired = plain.send("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=1))

    for result in (revoked, expired):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)


def test_a_countdown_is_kept(plain: Plain) -> None:
    """An ETA task is held, and runs when it is due."""
    before = datetime.now(UTC)

    plain.send("add", 1, 1, countdown=2).get(timeout=PATIENCE)

    assert datetime.now(UTC) - before >= timedelta(seconds=2)


def test_a_priority_arrives(plain: Plain) -> None:
    """The property travels; Pub/Sub itself knows no order of priorities."""
    assert plain.send("read_priority", priority=7).get(timeout=PATIENCE) == 7


def test_a_chord_is_completed(plain: Plain) -> None:
    """Ten headers and a body over forked children and the Redis backend."""
    add = plain.app.signature("plain.add")
    header = group(add.clone((number, number)) for number in range(10))

    total = chord(header, app=plain.app)(plain.app.signature("celery.accumulate"))

    assert total.get(timeout=PATIENCE) == [[2 * number for number in range(10)]]
