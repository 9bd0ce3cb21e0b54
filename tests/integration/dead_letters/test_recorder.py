"""Who gets to know of dead letters, and what happens while the store is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convotic_celery.dead_letters import DeadLetterEvent, Match
from convotic_celery.settings import Settings
from tests.integration.dead_letters.conftest import Desk, make_desk
from tests.support.waiting import wait_until

#: What the hook was called with.
told: list[DeadLetterEvent] = []


def tell(event: DeadLetterEvent) -> None:
    """Note it, and fail: that must not matter."""
    told.append(event)
    raise RuntimeError("the pager is broken")


@pytest.fixture
def desk(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """An app with settings of the test's own."""
    desk = make_desk(Settings(data_dir=data_dir, modules=[], **request.param))
    yield desk
    desk.session.close()
    desk.app.store.close()
    desk.app.close()


@pytest.mark.parametrize("desk", [{"dead_letter_hook": f"{__name__}:tell"}], indirect=True)
def test_a_hook_is_told_of_new_groups_and_of_repeated_failures(desk: Desk) -> None:
    """Once for the first of a group, and each time a replay has failed; its errors are logged."""
    told.clear()
    desk.fail({"id": 1}, message_id="m-1")
    desk.fail({"id": 2})
    desk.fail({"id": 3}, error="KeyError")
    desk.dead_letters.replay(Match(ids=("m-1",)), by="ada")
    desk.fail({"id": 1}, message_id="m-1", replays=1)

    wait_until(lambda: len(told) == 3)
    assert [(event.kind, event.dead_letter.error_type) for event in told] == [
        ("first", "ValueError"),
        ("first", "KeyError"),
        ("again", "ValueError"),
    ]


@pytest.mark.parametrize(
    "desk", [{"redis_url": "redis://127.0.0.1:1", "store_timeout": 0.1}], indirect=True
)
def test_an_unavailable_store_delays_no_dead_letter(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker goes on at once and says it once; a list is a sample."""
    spec = desk.spec()
    message_id = desk.fail({"id": 1}, indexed=False)
    (dead,) = desk.dead_letters.list().items
    assert dead.message_id == message_id
    with desk.session.resources.inspect(spec.dead_letter_topic) as inspection:
        (seen,) = inspection.pull(1)
    began = time.monotonic()

    with caplog.at_level(logging.WARNING, "convotic_celery.dead_letters.recorder"):
        for _ in range(1_000):
            assert spec.on_dead_letter is not None
            spec.on_dead_letter(seen.received, seen.received.attributes, "1")
        assert time.monotonic() - began < 50  # each would wait for the store, for 100 s
        wait_until(lambda: "Dead letters are not in the index yet" in caplog.text)
    assert desk.dead_letters.list().is_sample
    desk.app._recorder._pending.clear()
