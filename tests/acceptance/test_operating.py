"""`convotic publish`, `scheduled` and `workflows` with a real worker, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.acceptance.commands import convotic
from tests.acceptance.stage import TOPIC
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

WORKFLOW = """
from convotic_celery import ConvoticContext, ConvoticModule, WorkflowRun

module = ConvoticModule(name="parcels", version="1.0.0")


async def reserve(run: WorkflowRun, ctx: ConvoticContext) -> dict[str, int]:
    return {"place": 7}


async def charge(run: WorkflowRun, ctx: ConvoticContext) -> None:
    raise RuntimeError(f"place {run.result('reserve', dict)['place']} can't be paid")


module.workflow("fulfil", steps=[reserve, charge], max_retries=0)
"""


def test_files_lines_and_pipes_are_published(embedded_stage: Stage) -> None:
    """Each line with its id; a line at fault is named, and what stands before it is published."""
    stage = embedded_stage
    (stage.folder / "one.json").write_text('{\n  "id": 1\n}\n')
    (stage.folder / "many.jsonl").write_text('{"id": 2}\n\n{"id": 3}\nnope\n{"id": 4}\n')
    with stage.worker():
        one = convotic(stage, "publish", TOPIC, "@one.json", "-a", "source=shop")
        many = convotic(stage, "publish", TOPIC, "@many.jsonl")
        piped = subprocess.run(
            [sys.executable, "-m", "convotic_celery.cli", "publish", TOPIC, "-", "--lines"],
            cwd=stage.folder,
            env=convotic_environment(stage),
            input="".join(f'{{"id": {n}}}\n' for n in range(5, 2_005)),
            capture_output=True,
            text=True,
            check=True,
        )
        wait_until(lambda: {r["data"]["id"] for r in stage.read_runs("end")} >= {1, 2, 3, 5, 9})

    assert one.returncode == 0, one.stderr
    assert many.returncode == 1
    assert "line 4: not JSON" in many.stderr
    assert "The 2 before it are published." in many.stderr
    assert len(many.stdout.split()) == 2
    assert len(set(piped.stdout.split())) == 2_000
    assert "Published 2,000 messages in" in piped.stderr
    first = next(run for run in stage.read_runs() if run["data"]["id"] == 1)
    assert first["attributes"] == {"source": "shop"}
    assert first["id"] == one.stdout.strip()


def test_delayed_messages_are_listed_and_cancelled(embedded_stage: Stage) -> None:
    """Without a worker: they wait in the store."""
    stage = embedded_stage
    data = '{"id": 1, "note": "' + 80 * "x" + '"}'
    later = convotic(stage, "publish", TOPIC, data, "--delay", "2h").stdout.strip()
    sooner = convotic(stage, "publish", TOPIC, "2", "--delay", "1h30m", "--json").stdout

    listed = convotic(stage, "scheduled", "list")
    lines = listed.stdout.splitlines()
    (sooner_id,) = json.loads(sooner)["ids"]
    assert [line.split()[0] for line in lines] == ["schedule", sooner_id, later]
    assert "in 1 h" in lines[1]
    assert lines[2].endswith("x…")
    described = json.loads(convotic(stage, "scheduled", "list", "--json").stdout)
    assert described["waiting"] == 2
    assert json.loads(described["messages"][1]["data"]) == json.loads(data)

    assert convotic(stage, "scheduled", "cancel", later).stdout.split()[1] == "cancelled"
    again = convotic(stage, "scheduled", "cancel", later, sooner_id, "--json")
    assert (again.returncode, json.loads(again.stdout)[sooner_id]) == (1, True)
    assert convotic(stage, "scheduled", "list").stdout == "No message waits.\n"


def test_a_workflow_s_runs_are_listed_and_shown(embedded_stage: Stage) -> None:
    """With what each step returned, and why it failed."""
    stage = embedded_stage
    (stage.folder / "modules" / "parcels.py").write_text(WORKFLOW)
    start = (
        "from convotic_celery.app import create_app\n"
        "app = create_app()\n"
        "workflows = app.services.sync_workflows(app.services.sync_pubsub())\n"
        "print(workflows.start('fulfil', {'order': 8}, run_id='order-8').id)\n"
        "app.close()\n"
    )
    with stage.worker():
        subprocess.run(
            [sys.executable, "-c", start],
            cwd=stage.folder,
            env=convotic_environment(stage),
            check=True,
        )
        wait_until(
            lambda: "failed" in convotic(stage, "workflows", "list", "fulfil").stdout,
            what="the run to fail",
        )

    listed = convotic(stage, "workflows", "list", "--status", "failed", "--json")
    shown = convotic(stage, "workflows", "show", "order-8").stdout
    full = json.loads(convotic(stage, "workflows", "show", "order-8", "--json").stdout)

    assert [run["id"] for run in json.loads(listed.stdout)] == ["order-8"]
    assert 'input      {"order": 8}' in shown
    assert '✓ reserve  {"place": 7}' in shown
    assert "✗ charge   RuntimeError: place 7 can't be paid" in shown
    assert full["results"] == {"reserve": {"place": 7}}
    assert convotic(stage, "workflows", "show", "order-9").returncode == 1


def convotic_environment(stage: Stage) -> dict[str, str]:
    """Return the environment of the stage's commands."""
    return os.environ | stage.environment
