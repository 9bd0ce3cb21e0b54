"""`convotic pause` and `resume` on a fleet of real workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.acceptance.commands import convotic, wait_for_answers
from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.waiting import never, wait_until

if TYPE_CHECKING:
    import subprocess

OTHER = "custom.orders.plain"


def read_topics(stage: Stage) -> list[object]:
    """Return the `of` of what has run, in order."""
    return [run["data"]["of"] for run in stage.read_runs("end")]


def test_a_paused_handler_gets_nothing_until_it_is_resumed(stage: Stage) -> None:
    """Two workers stop pulling one handler; the other goes on; what waited runs on resume, once."""
    with stage.worker("-n", "one@%h"), stage.worker("-n", "two@%h"):
        paused = wait_for_answers(stage, "pause", QUEUE, workers={"one", "two"})
        for number in range(3):
            stage.publish_json({"of": "paused", "id": number})
        stage.publish_json({"of": "other"}, topic=OTHER)
        wait_until(lambda: "other" in read_topics(stage))
        never(lambda: "paused" in read_topics(stage), for_=1.5)
        resumed = wait_for_answers(stage, "resume", TOPIC, workers={"one", "two"})

        wait_until(lambda: read_topics(stage).count("paused") == 3)
        never(lambda: len(read_topics(stage)) > 4, for_=0.5)

    assert paused == {"one": "paused", "two": "paused"}
    assert resumed == {"one": "resumed", "two": "resumed"}


def test_a_worker_that_starts_later_keeps_to_the_pause(embedded_stage: Stage) -> None:
    """The pause is in the store: with no worker there it is kept, and said with exit code 1."""
    stage = embedded_stage
    paused = convotic(stage, "pause", QUEUE, "--timeout", "0.5")
    listed = convotic(stage, "pause", "--json")

    with stage.worker() as worker:
        stage.publish_json({"of": "paused"})
        stage.publish_json({"of": "other"}, topic=OTHER)
        wait_until(lambda: read_topics(stage) == ["other"])
        assert f"{QUEUE} is paused" in worker.read_log()
        convotic(stage, "resume", QUEUE)
        wait_until(lambda: read_topics(stage) == ["other", "paused"])

    assert paused.returncode == 1
    assert "No worker answered" in paused.stderr
    assert json.loads(listed.stdout) == [QUEUE]
    assert convotic(stage, "pause").stdout == "nothing is paused\n"


def test_resume_adds_no_queue_to_a_worker_that_does_not_serve_it(embedded_stage: Stage) -> None:
    """What `-Q` has left out stays out; with no other worker the exit code is 1."""
    stage = embedded_stage
    with stage.worker("-Q", f"{OTHER}.shop"):

        def resume() -> subprocess.CompletedProcess[str] | None:
            done = convotic(stage, "resume", QUEUE)
            return done if "does not consume it" in done.stdout else None

        resumed = wait_until(resume, what="the worker's answer")
        stage.publish_json({"of": "other"}, topic=OTHER)
        wait_until(lambda: read_topics(stage) == ["other"])

    assert resumed is not None
    assert resumed.returncode == 1
    assert f"No worker consumes {QUEUE}" in resumed.stderr


def test_an_unknown_handler_is_an_error_with_a_suggestion(embedded_stage: Stage) -> None:
    """Nothing is asked of anybody; exit code 2."""
    done = convotic(embedded_stage, "pause", "custom.orders.new.shp")

    assert done.returncode == 2
    assert f"did you mean '{QUEUE}'?" in done.stderr
