"""A revoked message stays revoked when all workers are restarted."""

from __future__ import annotations

import os
import subprocess
import sys

from convotic_celery.app import ConvoticApp
from convotic_celery.runtime.delivery.payload import task_id_of
from convotic_celery.settings import Settings
from tests.acceptance.commands import convotic, wait_for_answers
from tests.acceptance.stage import QUEUE, Stage
from tests.support.waiting import PATIENCE, wait_until


def test_a_revoke_survives_the_restart_of_all_workers(embedded_stage: Stage) -> None:
    """The message waits in Pub/Sub meanwhile; a later one runs.

    What the store has forgotten, a worker that starts hears from another one.
    """
    stage = embedded_stage
    app = ConvoticApp(Settings(data_dir=stage.data_dir, modules=[]), [], set_as_current=False)
    with stage.worker():
        wait_for_answers(stage, "pause", QUEUE, workers={"celery"})
        message_id = stage.publish_json({"id": "revoked"})
        task_id = task_id_of(QUEUE, message_id)
        # It needs no answer: what it does is looked for.
        celery(stage, "control", "revoke", task_id)
        revoked = f"{app.settings.store_prefix}revoked"
        client = app.store.sync_client()
        wait_until(lambda: client.zrange(revoked, 0, -1) == [task_id], timeout=PATIENCE)

    with stage.worker() as worker:
        convotic(stage, "resume", QUEUE)
        stage.publish_json({"id": "other"})
        wait_until(lambda: stage.read_runs("end"), timeout=PATIENCE)
        wait_until(lambda: task_id in worker.read_log(), timeout=PATIENCE)

        client.delete(revoked)
        app.store.close()
        app.close()
        with stage.worker("-n", "late@%h"):
            wait_until(lambda: celery(stage, "inspect", "revoked").count(task_id) == 2)

    assert [run["data"]["id"] for run in stage.read_runs()] == ["other"]


def celery(stage: Stage, *arguments: str) -> str:
    """Run a command of Celery's; return what it prints, also if nobody has answered in time."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "convotic_celery", *arguments],
        cwd=stage.folder,
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 69}, done.stderr
    return done.stdout
