"""Celery's settings that change what becomes of a message: a table of docs/transport.md."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import TaskRevokedError

from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.celery.conftest import second_app
from tests.support.pubsub import pull
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.celery.conftest import Plain


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def early(plain: Plain, request: pytest.FixtureRequest) -> Iterator[Plain]:
    """An app without ``task_acks_late``, and a worker of it: what Celery does by default."""
    settings = json.dumps({"task_acks_late": False})
    with ExitStack() as stack:
        app = stack.enter_context(second_app(plain, MORE=settings))
        stack.enter_context(app.worker(f"early-{request.param}", "-P", request.param))
        yield app


def waiting(app: Plain, queue: str = "celery") -> list[Any]:
    """Return what of a queue is with the server and not leased."""
    return list(pull(app.session, f"{app.prefix}{queue}"))


def test_without_late_acks_each_outcome_ends_the_message(early: Plain) -> None:
    """Acknowledged when its run begins: whatever the task does then, it is not run again."""
    done, failed = early.send("add", 1, 2), early.send("fail")
    ignored, rejected, requeued = (
        early.send("ignore"),
        early.send("reject"),
        early.send("reject", True),
    )
    retried = early.send("retry")

    assert done.get(timeout=PATIENCE) == 3
    assert str(failed.get(timeout=PATIENCE, propagate=False)) == "as asked"
    assert retried.get(timeout=PATIENCE) == 2
    wait_until(lambda: rejected.state == "FAILURE")  # another child may have run the later ones
    early.send("add", 0, 0).get(timeout=PATIENCE)
    early.send("add", 0, 0).get(timeout=PATIENCE)
    states = [each.state for each in (ignored, rejected, requeued)]
    assert states == ["PENDING", "FAILURE", "PENDING"]
    assert not waiting(early)
    letters = str(waiting(early, "celery.dead-letter"))
    assert not [each for each in (failed, rejected, requeued) if each.id in letters]


def test_without_late_acks_what_was_never_run_is_kept_or_revoked(early: Plain) -> None:
    """An unknown task and a foreign message are dead letters, as they are with late acks."""
    unknown = early.send("no_such_task")
    early.session.publish(OutgoingMessage(f"{early.prefix}celery", b"foreign")).result(PATIENCE)
    expired = early.send("add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=1))
    letters: list[bytes] = []

    def are_both_there() -> bool:
        letters.extend(each.message.data for each in waiting(early, "celery.dead-letter"))
        return any(unknown.id.encode() in each for each in letters) and b"foreign" in letters

    with pytest.raises(TaskRevokedError):
        expired.get(timeout=PATIENCE)
    wait_until(are_both_there, timeout=PATIENCE)
    assert early.send("add", 2, 2).get(timeout=PATIENCE) == 4
    assert not waiting(early)


def test_a_failure_is_a_dead_letter_if_acks_on_failure_are_off(plain: Plain) -> None:
    """``task_acks_on_failure_or_timeout = False``: kept with its reason; a timeout runs again."""
    settings = json.dumps({"task_acks_on_failure_or_timeout": False})
    with second_app(plain, MORE=settings) as app, app.worker("keeping"):
        failed = app.send("fail")

        assert str(failed.get(timeout=PATIENCE, propagate=False)) == "as asked"
        (letter,) = wait_until(lambda: waiting(app, "celery.dead-letter"), timeout=PATIENCE)

    assert letter.message.attributes["convotic-dead-letter-reason"] == "rejected"
    assert failed.id in str(letter.message.data)
    assert not waiting(app)


def test_a_lost_child_runs_again_if_asked(plain: Plain) -> None:
    """``task_reject_on_worker_lost``: delivered again at once."""
    settings = json.dumps({"task_reject_on_worker_lost": True})
    with second_app(plain, MORE=settings) as app, app.worker("again"):
        assert app.send("die_once").get(timeout=PATIENCE) == "again"

        wait_until(lambda: not waiting(app), timeout=PATIENCE)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_killed_workers_task_runs_on_another(plain: Plain, pool: str) -> None:
    """``kill -9``: its lease ends (10 s here) and another worker runs it, and what waited."""
    options = {"visibility_timeout_seconds": 10}
    with second_app(plain) as app:
        more = {"broker_transport_options": options | {"prefix": app.prefix}}
        app.environment["MORE"] = json.dumps(more)
        with app.worker("doomed", "-P", pool, "-c", "1") as doomed:
            app.send("note_and_hang_once", "slow")
            wait_until(app.read_notes, timeout=PATIENCE)
            app.send("note", "waiting")
            doomed.kill()
        with app.worker("next", "-P", "threads"):
            wait_until(lambda: len(app.read_notes()) >= 3)

    assert sorted(line.split()[1] for line in app.read_notes()) == ["slow", "slow", "waiting"]


def test_prefork_by_spawn_runs_publishes_and_replaces_its_children(plain: Plain) -> None:
    """Each child has a connection of its own; those that are killed or used up have successors."""
    settings = json.dumps({"worker_pool_start_method": "spawn", "worker_proc_alive_timeout": 60})
    with second_app(plain, MORE=settings) as app, app.worker("spawned"):
        assert [app.send("retry").get(timeout=PATIENCE) for _ in range(4)] == [2] * 4
        hung = app.send("hang", time_limit=1)
        dead = app.send("die")

        assert "TimeLimitExceeded" in repr(hung.get(timeout=PATIENCE, propagate=False))
        assert "WorkerLostError" in repr(dead.get(timeout=PATIENCE, propagate=False))
        assert app.send("retry").get(timeout=PATIENCE) == 2
        wait_until(lambda: not waiting(app), timeout=PATIENCE)
