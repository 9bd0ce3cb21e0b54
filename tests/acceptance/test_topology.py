"""``convotic topology``: plan, apply and export, as a deployment uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.commands import convotic
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

TOPIC = "custom.orders.new"

#: What is to change, and what must not: each message has its effect once, by its id.
MODULE = """
import os
from pathlib import Path

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("custom.orders.new", deduplicate="message.id", ack_deadline=10, concurrency=4{more})
async def process_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
    with Path(os.environ["CONVOTIC_TEST_RECORD"]).open("a") as file:
        file.write(message.id + "\\n")
"""


def write_module(stage: Stage, more: str = "") -> None:
    """Write the module, with more options of its handler."""
    modules = stage.folder / "modules"
    modules.mkdir(exist_ok=True)
    for old in modules.glob("*"):
        if old.is_file():
            old.unlink()
    (modules / "shop.py").write_text(MODULE.replace("{more}", more))


def test_plan_apply_plan(embedded_stage: Stage) -> None:
    """Exit code 2 and what is missing; applied without a terminal only with --yes; then 0."""
    stage = embedded_stage
    write_module(stage)

    planned = convotic(stage, "topology", "plan")
    refused = convotic(stage, "topology", "apply")
    still = convotic(stage, "topology", "plan", "--json")
    applied = convotic(stage, "topology", "apply", "--yes")
    done = convotic(stage, "topology", "plan")

    assert planned.returncode == 2, planned.stderr
    assert f"+ topic        {TOPIC}\n" in planned.stdout
    assert f"+ subscription {TOPIC}.shop\n" in planned.stdout
    assert refused.returncode == 1
    assert "pass --yes" in refused.stderr
    assert len(json.loads(still.stdout)["changes"]) == 10
    assert applied.returncode == 0, applied.stderr
    assert f"created subscription {TOPIC}.shop\n" in applied.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert "Everything is as the modules need it." in done.stdout


def test_a_wrong_module_is_no_change(embedded_stage: Stage) -> None:
    """Exit code 1, for 2 says that there is something to apply."""
    stage = embedded_stage
    write_module(stage, more=", ack_dedline=5")

    planned = convotic(stage, "topology", "plan")

    assert planned.returncode == 1
    assert "ack_dedline" in planned.stderr


def test_orphans_are_listed_with_their_backlog_and_deleted_by_name(embedded_stage: Stage) -> None:
    """A handler is removed: its messages are shown, and nothing is deleted untold."""
    stage = embedded_stage
    write_module(stage)
    assert convotic(stage, "topology", "apply", "--yes").returncode == 0
    stage.publish(b"{}", b"{}", topic=TOPIC)
    path = stage.folder / "modules" / "shop.py"
    path.write_text(path.read_text().replace(TOPIC, "custom.refunds"))

    planned = convotic(stage, "topology", "plan")
    applied = convotic(stage, "topology", "apply", "--yes")
    wrong = convotic(stage, "topology", "apply", "--yes", "--delete", "custom.refunds")
    deleted = convotic(stage, "topology", "apply", "--yes", "--delete", f"{TOPIC}.shop")

    assert f"  subscription {TOPIC}.shop  2 messages, the oldest " in planned.stdout
    assert "deleted" not in applied.stdout
    assert wrong.returncode == 2
    assert "is not an orphan" in wrong.stderr
    assert deleted.stdout.endswith(f"deleted subscription {TOPIC}.shop\n")
    after = json.loads(convotic(stage, "topology", "plan", "--json").stdout)
    assert f"{TOPIC}.shop" not in [each["name"].rsplit("/", 1)[1] for each in after["orphans"]]


def test_two_deploys_at_once(embedded_stage: Stage) -> None:
    """Real processes that create, change and replace the same things: both succeed, once."""
    stage = embedded_stage
    write_module(stage)
    run_twice_at_once(stage)
    stage.publish(*[b"{}"] * 30, topic=TOPIC, kind="a")
    write_module(stage, more=', filter="attributes:kind", max_retries=9')

    outputs = run_twice_at_once(stage)

    assert any(f"replaced subscription {TOPIC}.shop" in each for each in outputs)
    assert convotic(stage, "topology", "plan").returncode == 0
    assert count_messages(stage) == 30


def run_twice_at_once(stage: Stage) -> list[str]:
    """Apply in two processes at the same time; return what they print."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "convotic_celery.cli", "topology", "apply", "--yes"],
            cwd=stage.folder,
            env=os.environ | stage.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=2 * PATIENCE) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    return [out for out, _ in outputs]


def count_messages(stage: Stage) -> int:
    """Return how many messages the handler's subscription has."""
    from convotic_pubsub.options import TransportOptions  # noqa: PLC0415
    from convotic_pubsub.session import Session  # noqa: PLC0415

    session = Session(TransportOptions(project=stage.project, emulator_host=stage.address))
    try:
        return session.resources.backlog_sizes([f"{TOPIC}.shop"])[f"{TOPIC}.shop"].messages
    finally:
        session.close()


def test_a_filter_is_changed_under_a_running_worker(embedded_stage: Stage) -> None:
    """While messages flow and an old worker runs: none is lost, none has two effects."""
    stage = embedded_stage
    write_module(stage)
    record = Path(stage.folder / "record.jsonl")
    published: list[str] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.02):
            published.append(stage.publish(b"{}", topic=TOPIC, kind="a"))

    with stage.worker():
        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            wait_until(record.exists, what="the first run")
            write_module(stage, more=', filter="attributes:kind"')
            applied = convotic(stage, "topology", "apply", "--yes")
            assert applied.returncode == 0, applied.stdout + applied.stderr
            before = len(published)
            wait_until(lambda: len(published) > before + 20, what="more messages")
        finally:
            stop.set()
            publisher.join()
        wait_until(
            lambda: set(record.read_text().split()) >= set(published),
            what="all messages to be processed",
        )

    ids = record.read_text().split()
    assert sorted(ids) == sorted(published), "each message has one effect"
    assert f"± subscription {TOPIC}.shop" in applied.stdout
    assert convotic(stage, "topology", "plan").returncode == 0


def test_terraform_contacts_nothing(embedded_stage: Stage) -> None:
    """It is written from the modules alone."""
    stage = embedded_stage
    write_module(stage)

    done = convotic(stage, "topology", "export", "terraform")

    assert done.returncode == 0, done.stderr
    assert 'resource "google_pubsub_subscription" "custom_orders_new_shop" {' in done.stdout
    assert not (stage.data_dir / "emulator.sock").exists()
    assert not list(stage.data_dir.glob("*.db"))
