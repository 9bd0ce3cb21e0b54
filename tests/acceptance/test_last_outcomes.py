"""The last outcomes of handlers, from a real worker, after it is gone."""

from __future__ import annotations

import uuid
from typing import Any

from convotic_celery.app import ConvoticApp
from convotic_celery.runtime.delivery.payload import task_id_of
from convotic_celery.sdk.module import ConvoticModule
from convotic_celery.settings import Settings
from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.waiting import PATIENCE, wait_until


def test_the_last_outcomes_survive_the_worker(embedded_stage: Stage) -> None:
    """By handler, and by the id of a message or task; an id without outcomes is unknown."""
    stage = embedded_stage
    module = ConvoticModule(name="shop", version="1")

    async def stand_in(message: Any, ctx: Any) -> None:
        pass

    module.worker(TOPIC)(stand_in)
    settings = Settings(data_dir=stage.data_dir, modules=[])
    app = ConvoticApp(settings, module.collect().handlers, set_as_current=False)
    with stage.worker():
        good = stage.publish_json({"id": "good"})
        bad = stage.publish(b"not json")
        failing = stage.publish_json({"id": "failing", "fail": True})
        wait_until(
            lambda: len(app.last_outcomes.last(QUEUE)) >= 3, timeout=PATIENCE, what="outcomes"
        )

    found = {each.message_id: each for each in reversed(app.last_outcomes.last(QUEUE))}
    assert {message: found[message].outcome for message in (good, bad, failing)} == {
        good: "succeeded",
        bad: "dead_lettered",
        failing: "retried",
    }
    assert found[failing].reason == "RuntimeError"
    assert found[good].attempt == 1
    assert found[good].duration_seconds is not None
    assert (found[bad].attempt, found[bad].duration_seconds) == (0, None)  # nothing ran
    task: Any = app.tasks[QUEUE]
    states = [task.find_result(task_id_of(QUEUE, each)).state for each in (good, bad, failing)]
    assert states == ["SUCCESS", "FAILURE", "RETRY"]
    assert task.find_result(task_id_of(QUEUE, "12345")).state == "unknown"
    states = [app.AsyncResult(task_id_of(QUEUE, each)).state for each in (good, bad, "12345")]
    assert states == ["SUCCESS", "FAILURE", "unknown"]
    assert app.AsyncResult(str(uuid.uuid4())).state == "PENDING"  # perhaps an ordinary task
    published = task.delay({"id": "later"})
    assert published.state == "PENDING"
    app.store.close()
    app.close()
