"""Dead letters as somebody on call meets them: real workers, and `convotic dlq`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from convotic_celery import ConvoticModule
from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters import Job, Match
from convotic_celery.settings import Settings
from tests.acceptance.commands import convotic
from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE, wait_until

TOPIC = "shop.orders"
BILLING, STOCK, MAIL = (f"{TOPIC}.desk.{name}" for name in ("billing", "stock", "mail"))

MODULE = '''
"""Three handlers of one topic and an ordinary task, which fail until they are mended."""

import json
import os
from pathlib import Path

from celery import shared_task
from celery.exceptions import Reject

from convotic_celery import ConvoticModule, WorkerMessage

module = ConvoticModule(name="desk", version="1.0.0")
RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])


def work(name: str, message: WorkerMessage) -> None:
    is_mended = (RECORD.parent / "mended").exists()
    line = {"what": name if is_mended else "failed", "id": message.id, "data": message.data}
    line |= {"attempt": message.attempt}
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\\n")
    if not is_mended:
        reject(message.data["id"])


def reject(number: int) -> None:
    if number % 2:
        raise KeyError(f"sku-{number}")
    raise ValueError(f"order {number} can't be processed")


@module.worker("shop.orders", name="billing", max_retries=0, concurrency=20,
               deduplicate="message.id")
async def bill(message, ctx) -> None:
    work("billing", message)


@module.worker("shop.orders", name="stock", max_retries=0, concurrency=20,
               deduplicate="message.id")
async def reserve(message, ctx) -> None:
    work("stock", message)


@module.worker("shop.orders", name="mail", max_retries=0, concurrency=20,
               deduplicate="message.id")
async def send_mail(message, ctx) -> None:
    work("mail", message)


@shared_task(name="desk.report", acks_late=True)
def report(number) -> None:
    if not (RECORD.parent / "reportable").exists():
        raise Reject("no report yet")
    with RECORD.open("a") as file:
        file.write(json.dumps({"what": "report", "number": number}) + "\\n")
'''


@pytest.fixture
def stage(embedded_stage: Stage) -> Stage:
    """The embedded servers and a module of three handlers."""
    (embedded_stage.folder / "modules" / "shop.py").unlink()
    (embedded_stage.folder / "modules" / "desk.py").write_text(MODULE)
    return embedded_stage


@contextmanager
def open_app(stage: Stage) -> Iterator[ConvoticApp]:
    """Look at the stage from this process, which knows the handlers and runs none."""

    async def stand_in(message: Any, ctx: Any) -> None:
        pass

    module = ConvoticModule(name="desk", version="1.0.0")
    for name in ("billing", "stock", "mail"):
        module.worker(TOPIC, name=name)(stand_in)
    settings = Settings(data_dir=stage.data_dir, modules_dir=stage.folder / "none")
    app = ConvoticApp(settings, module.collect().handlers, set_as_current=False)
    try:
        yield app
    finally:
        app.store.close()
        app.close()


def fail_orders(stage: Stage, app: ConvoticApp, count: int) -> None:
    """Publish orders and wait until each is a dead letter of each handler."""
    stage.publish_json(*({"id": number} for number in range(count)), topic=TOPIC)
    wait_until(
        lambda: app.dead_letters.count(Match()) == 3 * count,
        timeout=PATIENCE,
        what="all dead letters in the index",
    )


def run_json(stage: Stage, *arguments: str) -> Any:
    """Return what `convotic dlq … --json` prints."""
    done = convotic(stage, "dlq", *arguments, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_a_group_of_a_thousand_dead_letters_is_replayed(stage: Stage) -> None:
    """Each is processed once more by the right handler, and the others see none."""
    with stage.worker(), open_app(stage) as app:
        fail_orders(stage, app, 334)
        groups = run_json(stage, "groups")
        assert {(g["handler"], g["error_type"]): g["counts"]["open"] for g in groups} == {
            (handler, error): 167
            for handler in (BILLING, STOCK, MAIL)
            for error in ("KeyError", "ValueError")
        }
        assert all(group["stack"][-1].endswith(":reject") for group in groups)
        (found,) = run_json(stage, "list", "--handler", STOCK, "--payload", "id=7")["items"]
        assert json.loads(found["data"]) == {"id": 7}
        (group,) = [g for g in groups if (g["handler"], g["error_type"]) == (STOCK, "KeyError")]
        would = run_json(stage, "replay", "--group", group["id"], "--dry-run")
        assert (would["would"], would["count"], would["warnings"]) == ("replay", 167, [])
        (stage.folder / "mended").touch()

        job = run_json(stage, "replay", "--group", group["id"], "--by", "ada")

        assert (job["total"], job["done"], job["collected"]) == (167, 167, 167)
        wait_until(lambda: len(stage.read_runs("stock")) >= 167, what="all processed")
        runs = stage.read_runs("stock")
        expected = {number for number in range(334) if number % 2}
        assert Counter(run["data"]["id"] for run in runs) == dict.fromkeys(expected, 1)
        assert {run["attempt"] for run in runs} == {1}
        first_ids = {r["data"]["id"]: r["id"] for r in stage.read_runs("failed")}
        assert all(run["id"] == first_ids[run["data"]["id"]] for run in runs)
        assert stage.read_runs("billing") == stage.read_runs("mail") == []
        assert app.dead_letters.count(Match()) == 5 * 167
        log = run_json(stage, "log")
        assert [(line["by"], line["action"], line["count"]) for line in log] == [
            ("ada", "replay", "167")
        ]


def test_a_replay_that_is_killed_five_times_loses_and_repeats_nothing(stage: Stage) -> None:
    """Each resumes where the last one was killed; the idempotent handler runs once a message."""
    with stage.worker(), open_app(stage) as app:
        fail_orders(stage, app, 334)
        (stage.folder / "mended").touch()
        # Slow: none is at its end before it is looked at, killed, and found dead.
        command = ["replay", "--handler", BILLING, "--rate", "10"]
        done = 0
        for left in range(5, 0, -1):
            # Until it is looked at, it does more: two thirds are left for that.
            until = done + random.randint(1, max(1, (334 - done) // (3 * left)))
            job = kill_midway(stage, app, command, until)
            done = job.done
            command = ["resume", job.id]
            wait_until_abandoned(app, job)

        app.dead_letters._journal.set_rate(job, 0)
        finished = app.dead_letters.resume(job.id)

        assert (finished.state, finished.done, finished.skipped) == ("done", 334, 0)
        wait_until(lambda: len(stage.read_runs("billing")) >= 334, what="all processed")
        subscription = app.dead_letters._deployment.dead_letter_subscription(BILLING)
        resources = app.dead_letters._deployment.session().resources

        def is_empty() -> bool:  # a killed process's leases end within a minute
            app.dead_letters.sync(BILLING)
            return resources.backlog_sizes([subscription])[subscription].messages == 0

        wait_until(is_empty, timeout=180, what="no message left in the subscription")
        runs = Counter(run["data"]["id"] for run in stage.read_runs("billing"))
        assert runs == dict.fromkeys(range(334), 1)
        assert stage.read_runs("stock") == stage.read_runs("mail") == []
        assert app.dead_letters.count(Match()) == 2 * 334


def wait_until_abandoned(app: ConvoticApp, job: Job) -> None:
    """Wait until the journal knows that a job's process is gone."""
    wait_until(
        lambda: app.dead_letters.job(job.id).is_abandoned,
        timeout=PATIENCE,
        what="the job without its process",
    )


def kill_midway(stage: Stage, app: ConvoticApp, command: list[str], until: int) -> Job:
    """Run a command until it has done so many, kill it; return its job."""
    process = subprocess.Popen(
        [sys.executable, "-m", "convotic_celery.cli", "dlq", *command],
        cwd=stage.folder,
        env=os.environ | stage.environment,
    )

    def is_far() -> bool:
        jobs = app.dead_letters.jobs()
        return bool(jobs) and jobs[0].done >= until

    try:
        wait_until(is_far, timeout=PATIENCE, what="some progress")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return app.dead_letters.jobs()[0]


def test_the_verbs_on_the_command_line(stage: Stage) -> None:
    """show, edit, archive, restore, redirect, purge, export, jobs and sync; replay of a task."""
    with stage.worker(), open_app(stage) as app:
        fail_orders(stage, app, 4)
        entry = {
            (d.handler, json.loads(d.data or b"")["id"]): d.id for d in app.dead_letters.export()
        }
        shown = convotic(stage, "dlq", "show", entry[BILLING, 1])
        assert "desk:reject" in shown.stdout
        assert '"id": 1' in shown.stdout

        edited = run_json(stage, "edit", entry[BILLING, 1], "--data", '{"id": 100}')
        assert '-  "id": 1\n+  "id": 100' in edited.pop("difference")
        assert edited == {"id": entry[BILLING, 1], "dry_run": False}
        refused = convotic(stage, "dlq", "edit", entry[BILLING, 1], "--data", "{")
        assert refused.returncode == 1
        assert "JSON" in refused.stderr

        assert run_json(stage, "archive", "--handler", MAIL) == {"archived": 4, "dry_run": False}
        assert run_json(stage, "list", "--handler", MAIL)["items"] == []
        assert run_json(stage, "restore", entry[MAIL, 0])["restored"] == 1
        nothing = convotic(stage, "dlq", "replay")
        assert nothing.returncode == 2
        assert "--all" in nothing.stderr

        (stage.folder / "mended").touch()
        job = run_json(stage, "redirect", entry[BILLING, 1], "--to", STOCK)
        assert (job["target"], job["done"]) == (STOCK, 1)
        (run,) = wait_until(lambda: stage.read_runs("stock"))
        assert run["data"] == {"id": 100}

        over = convotic(stage, "dlq", "cancel", job["id"], "--json")
        assert json.loads(over.stdout) == {"job": job["id"], "cancelled": False}
        assert over.returncode == 1

        unsure = convotic(stage, "dlq", "purge", "--handler", STOCK, "--error", "KeyError")
        assert (unsure.returncode, "--yes" in unsure.stderr) == (2, True)
        purged = run_json(stage, "purge", "--handler", STOCK, "--error", "KeyError", "--yes")
        assert (purged["done"], purged["collected"]) == (2, 2)

        exported = convotic(stage, "dlq", "export", "--handler", STOCK)
        assert {
            json.loads(json.loads(line)["data"])["id"] for line in exported.stdout.split("\n")[:-1]
        } == {0, 2}
        assert [job["action"] for job in run_json(stage, "jobs")] == ["purge", "redirect"]
        reports = {report["handler"]: report for report in run_json(stage, "sync")}
        assert reports[STOCK]["seen"] == 2
        assert all(r["taken_in"] == r["missing"] == 0 for r in reports.values())

        # An ordinary task's dead letter is indexed by its worker as well.
        app.send_task("desk.report", [7])
        queue = Match(handler=app.conf.task_default_queue)
        (found,) = wait_until(lambda: app.dead_letters.list(queue).items, what="the task's entry")
        assert (found.reason, found.error_message) == ("rejected", "task desk.report")
        (stage.folder / "reportable").touch()
        job = run_json(stage, "replay", "--handler", found.handler)
        assert (job["done"], job["collected"]) == (1, 1)
        assert wait_until(lambda: stage.read_runs("report")) == [{"what": "report", "number": 7}]
