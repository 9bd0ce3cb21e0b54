"""What becomes of a message, from any client to a real worker and back."""

from __future__ import annotations

import itertools

import pytest

from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE, never, wait_until


def test_a_message_of_googles_client_is_processed(stage: Stage) -> None:
    """Plain JSON published by Google's client reaches the handler with its attributes and id."""
    with stage.worker():
        message_id = stage.publish(b'{"id": 1, "customer_id": "c-1"}', source="api")

        (run,) = wait_until(lambda: stage.read_runs("end"))

    assert run["data"] == {"id": 1, "customer_id": "c-1"}
    assert run["attributes"] == {"source": "api"}
    assert run["id"] == message_id


def test_what_is_not_json_is_dead_lettered_and_the_worker_goes_on(stage: Stage) -> None:
    """Undecodable data becomes a dead letter with reason `invalid`; the handler never ran."""
    with stage.worker():
        message_id = stage.publish(b"not json", source="api")

        dead_letter = stage.pull_dead_letter()
        stage.publish_json({"id": 2})
        wait_until(lambda: stage.read_runs("end"))

    assert dead_letter.data == b"not json"
    assert dead_letter.attributes["source"] == "api"
    assert dead_letter.attributes["convotic-dead-letter-reason"] == "invalid"
    assert dead_letter.attributes["convotic-dead-letter-message-id"] == message_id
    assert [run["data"] for run in stage.read_runs()] == [{"id": 2}]


def test_a_failing_message_runs_three_times_and_delays_nobody(stage: Stage) -> None:
    """With max_retries=2 a message runs 3 times, 10 s apart, then is a dead letter; others pass."""
    with stage.worker():
        stage.publish_json({"id": "bad", "fail": True}, source="api")
        wait_until(stage.read_runs)
        for number in range(20):
            stage.publish_json({"id": number})
        wait_until(lambda: {run["data"]["id"] for run in stage.read_runs("end")} == {*range(20)})

        dead_letter = stage.pull_dead_letter()
        never(lambda: len(failing_starts(stage)) > 3, for_=1)

    starts = failing_starts(stage)
    assert len(starts) == 3
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # A run may take its time to write its line.
    assert all(6 < gap < PATIENCE for gap in gaps), gaps
    assert dead_letter.data == b'{"id": "bad", "fail": true}'
    assert dead_letter.attributes["source"] == "api"
    assert dead_letter.attributes["convotic-dead-letter-reason"] == "max-retries-exceeded"
    assert dead_letter.attributes["convotic-dead-letter-attempts"] == "3"
    assert dead_letter.attributes["convotic-dead-letter-error-type"].endswith("RuntimeError")
    assert "always fails" in dead_letter.attributes["convotic-dead-letter-error-message"]


def failing_starts(stage: Stage) -> list[float]:
    return [run["at"] for run in stage.read_runs() if run["data"].get("fail")]


@pytest.mark.crash(1, "the worker, before the handler started", lost="nothing", repeated="nothing")
@pytest.mark.crash(
    2,
    "the worker, while the handler runs",
    lost="nothing",
    repeated="what the handler had done so far",
)
def test_a_killed_workers_message_is_delivered_again(stage: Stage) -> None:
    """kill -9 in the middle of a run loses nothing: the next worker runs it, and what waited.

    Its second run is short: what waits behind a long one may run at the very end of its own lease,
    and twice.
    """
    with stage.worker() as first:
        stage.publish_json({"id": "slow", "until": "killed"})
        wait_until(stage.read_runs)
        stage.publish_json({"id": "waiting"})
        first.child.kill()
    (stage.folder / "killed").touch()

    with stage.worker():
        wait_until(lambda: len(stage.read_runs()) >= 3)
    assert sorted(run["data"]["id"] for run in stage.read_runs()) == ["slow", "slow", "waiting"]
