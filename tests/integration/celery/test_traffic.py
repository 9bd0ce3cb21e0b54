"""Celery's own traffic: ``rpc://`` results, gossip, two apps on one project."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.celery.conftest import Plain, second_app
from tests.support.pubsub import pull, unique
from tests.support.waiting import PATIENCE, wait_until


def test_results_come_back_by_rpc(plain: Plain) -> None:
    """``rpc://``: the reply queue lives in the caller's process; a failure arrives too."""
    with second_app(plain, BACKEND="rpc://") as app, app.worker("rpc"):
        results = [app.send("add", number, 1) for number in range(10)]
        failed = app.send("fail")

        assert [result.get(timeout=PATIENCE) for result in results] == list(range(1, 11))
        assert str(failed.get(timeout=PATIENCE, propagate=False)) == "as asked"


def test_gossip_tells_of_a_worker_that_joins_and_leaves(plain: Plain) -> None:
    """Workers hear each other's events."""
    with second_app(plain) as app, app.worker("host", "--loglevel", "DEBUG"):
        log = plain.folder / "host.log"
        with app.worker("guest"):
            wait_until(lambda: re.search(r"guest@\S+ joined the party", log.read_text()))
            assert not re.search(r"guest@\S+ left", log.read_text())

        wait_until(lambda: re.search(r"guest@\S+ left", log.read_text()))


def test_two_prefixes_part_tasks_control_and_events(plain: Plain, worker: object) -> None:
    """Neither gets the other's tasks, answers its commands or sees its events."""
    del worker
    seen: list[dict[str, Any]] = []
    with (
        second_app(plain) as second,
        second.worker("other", "-E"),
        second.app.connection_for_read() as connection,
    ):
        receiver = second.app.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context() as (events, _, _):
            plain.send("note", "ours").get(timeout=PATIENCE)
            second.send("note", "theirs").get(timeout=PATIENCE)
            wait_until(lambda: drain(events, seen, "task-succeeded"))
            ours = wait_until(lambda: plain.app.control.ping(timeout=2))
            theirs = wait_until(lambda: second.app.control.ping(timeout=2))

    assert [line.split()[1] for line in second.read_notes()] == ["theirs"]
    assert "theirs" not in [line.split()[1] for line in plain.read_notes()]
    assert {node.split("@")[0] for reply in theirs for node in reply} == {"other"}
    assert {node.split("@")[0] for reply in ours for node in reply} == {"shared"}
    assert {event["hostname"].split("@")[0] for event in seen} == {"other"}


def drain(connection: Any, seen: list[dict[str, Any]], kind: str) -> bool:
    """Hand over events that have come; say whether one of a kind was seen."""
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.2)
    return any(event["type"] == kind for event in seen)


def test_a_message_that_celery_fails_on_is_a_dead_letter_and_leased_no_more(
    plain: Plain, worker: object
) -> None:
    """A header of the wrong type: the worker goes on, nothing stays behind."""
    del worker
    identity = unique("broken")
    broken = {
        "body": "W1tdLCB7fSwge31d",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "plain.add", "id": identity, "eta": ["no", "date"]},
        "properties": {"body_encoding": "base64", "delivery_info": {}},
    }
    data = json.dumps(broken).encode()
    session = plain.session
    session.publish(OutgoingMessage(f"{plain.prefix}celery", data)).result(PATIENCE)

    def find() -> Any:
        letters = pull(session, f"{plain.prefix}celery.dead-letter")
        return [each.message for each in letters if identity in str(each.message)]

    (letter, *_) = wait_until(find)
    assert letter.data == data
    assert plain.send("add", 2, 3).get(timeout=PATIENCE) == 5
    assert not list(pull(session, f"{plain.prefix}celery"))
