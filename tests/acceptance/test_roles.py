"""The roles that docs/google-cloud.md lists: they suffice, and each one is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from convotic_celery.topology.rights import CONTROL_PERMISSIONS
from convotic_emulator.testing import EmulatorThread
from tests.acceptance.commands import convotic
from tests.acceptance.stage import Stage, make_stage
from tests.support.lines import read_lines
from tests.support.waiting import PATIENCE, never, wait_until

MODULE = """
import os
from pathlib import Path

from convotic_celery import ConstantBackoff, ConvoticContext, ConvoticModule, WorkerMessage

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("orders", max_retries=1, backoff=ConstantBackoff(delay=1))
async def process(message: WorkerMessage, ctx: ConvoticContext) -> None:
    with Path(os.environ["CONVOTIC_TEST_RECORD"]).open("a") as file:
        file.write(message.data["do"] + "\\n")
    if message.data["do"] == "fail":
        raise RuntimeError("it always fails")
    if message.data["do"] == "publish":
        await ctx.pubsub.publish("invoices", data={})


@module.worker("invoices")
async def invoice(message: WorkerMessage, ctx: ConvoticContext) -> None: ...
"""
PROJECT = "projects/convotic-local"
SUBSCRIPTION = f"{PROJECT}/subscriptions/orders.shop"
DEAD_LETTERS = f"{PROJECT}/topics/orders.shop.dead-letter"
KEPT = f"{PROJECT}/subscriptions/orders.shop.dead-letter"
INVOICES = f"{PROJECT}/topics/invoices"

#: Of a worker that leaves remote control, mingle and gossip alone, with provision=off.
LEAST: Mapping[str, tuple[str, ...]] = {
    **{
        f"{PROJECT}/subscriptions/{name}": ("roles/pubsub.subscriber",)
        for name in ("orders.shop", "invoices.shop", "celery")
    },
    **{
        f"{PROJECT}/topics/{name}": ("roles/pubsub.publisher",)
        for name in ("orders", "orders.shop.dead-letter", "invoices.shop.dead-letter", "invoices")
    },
}
ALONE = ("--without-mingle",)
#: What the control subscription needs beside.
CONTROL = {
    PROJECT: tuple(CONTROL_PERMISSIONS),
    f"{PROJECT}/topics/celery.control": ("roles/pubsub.publisher",),
    f"{PROJECT}/topics/celery.events": ("roles/pubsub.publisher",),
}


class Site:
    """An emulator whose rights the test gives and takes, and a stage with a worker on it."""

    def __init__(self, stage: Stage, emulator: EmulatorThread) -> None:
        self.stage = stage
        self.emulator = emulator
        self.faults = emulator.faults

    def publish(self, what: str) -> None:
        self.stage.publish_json({"do": what}, topic="orders")

    def read_runs(self) -> list[str]:
        return read_lines(self.stage.folder / "record.jsonl")


@pytest.fixture
def site(tmp_path: Path, data_dir: Path) -> Iterator[Site]:
    """A site whose topology was applied by somebody with more rights."""
    with EmulatorThread() as emulator:
        stage = make_stage(tmp_path, data_dir, emulator.address)
        stage.project = "convotic-local"
        stage.environment["CONVOTIC_BROKER_URL"] = "pubsub://convotic-local"
        stage.environment["CONVOTIC_PROVISION"] = "off"
        for old in (stage.folder / "modules").glob("*.py"):
            old.unlink()
        (stage.folder / "modules" / "shop.py").write_text(MODULE)
        applied = convotic(stage, "topology", "apply", "--yes")
        assert applied.returncode == 0, applied.stderr
        yield Site(stage, emulator)


def run_to_its_end(site: Site, *arguments: str) -> str:
    """Run a worker that can't start; return what it prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "convotic_celery",
            "worker",
            "-l",
            "INFO",
            *arguments,
        ],
        cwd=site.stage.folder,
        env=os.environ | site.stage.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["least", "with control", "verify"])
def test_the_listed_roles_suffice(site: Site, kind: str) -> None:
    """Nothing else is granted: messages run, fail into the dead letters, and publish."""
    rights: dict[str, tuple[str, ...]] = dict(LEAST)
    arguments: tuple[str, ...] = ALONE
    if kind == "with control":
        rights, arguments = rights | CONTROL, ()
    else:
        site.stage.environment["CONVOTIC_REMOTE_CONTROL"] = "false"
    if kind == "verify":
        site.stage.environment["CONVOTIC_PROVISION"] = "verify"
        rights[PROJECT] = ("roles/pubsub.viewer",)
    site.faults.grant_only(rights)

    with site.stage.worker(*arguments) as worker:
        for what in ("fail", "publish"):
            site.publish(what)
        wait_until(lambda: site.emulator.count(KEPT) == 1, what="the dead letter")
        wait_until(lambda: site.emulator.count(SUBSCRIPTION) == 0, what="all to be acknowledged")
        log = worker.read_log()

    assert sorted(site.read_runs()) == ["fail", "fail", "publish"]
    assert "not authorized" not in "".join(
        line for line in log.splitlines() if "ERROR" in line or "CRITICAL" in line
    )
    assert "celeryev" not in log  # events need no right to list


def test_subscriber_is_needed_on_the_subscription(site: Site) -> None:
    """Without it nothing runs, an error names the subscription, and nothing is lost."""
    site.stage.environment["CONVOTIC_REMOTE_CONTROL"] = "false"
    site.faults.grant_only(LEAST)
    site.faults.deny(SUBSCRIPTION, "roles/pubsub.subscriber")

    with site.stage.worker(*ALONE) as worker:
        site.publish("work")
        wait_until(
            lambda: f"{SUBSCRIPTION}: User not authorized" in worker.read_log(), what="the error"
        )
        never(site.read_runs, for_=1)
        site.faults.allow(SUBSCRIPTION)
        wait_until(lambda: site.read_runs() == ["work"], what="the run")


def test_publisher_is_needed_on_the_dead_letter_topic(site: Site) -> None:
    """Without it what failed is kept where it is, with an error, until it may be published."""
    site.stage.environment["CONVOTIC_REMOTE_CONTROL"] = "false"
    site.faults.grant_only(LEAST)
    site.faults.deny(DEAD_LETTERS, "roles/pubsub.publisher")

    with site.stage.worker(*ALONE) as worker:
        site.publish("fail")
        wait_until(
            lambda: f"{DEAD_LETTERS}: User not authorized" in worker.read_log(),
            what="the error",
        )
        assert site.emulator.count(SUBSCRIPTION) == 1
        site.faults.allow(DEAD_LETTERS)
        wait_until(lambda: site.emulator.count(KEPT) == 1, what="the dead letter")


def test_publisher_is_needed_on_what_handlers_publish_to(site: Site) -> None:
    """Without it their publish raises, so the run is retried and then dead-lettered."""
    site.stage.environment["CONVOTIC_REMOTE_CONTROL"] = "false"
    site.faults.grant_only(LEAST)
    site.faults.deny(INVOICES, "roles/pubsub.publisher")

    with site.stage.worker(*ALONE):
        site.publish("publish")
        wait_until(lambda: site.emulator.count(KEPT) == 1, what="the dead letter")

    assert site.read_runs() == ["publish", "publish"]


@pytest.mark.parametrize(
    "permission", ["subscriptions.create", "topics.attachSubscription", "subscriptions.get"]
)
def test_the_control_permissions_are_needed_for_remote_control(site: Site, permission: str) -> None:
    """Without one the worker ends at its start, and names its control subscription."""
    allowed = CONTROL_PERMISSIONS - {f"pubsub.{permission}"}
    site.faults.grant_only({**LEAST, **CONTROL, PROJECT: tuple(allowed)})

    printed = run_to_its_end(site)

    assert "CRITICAL" in printed
    assert f"{PROJECT}/subscriptions/celery.control." in printed
    assert "not authorized" in printed


@pytest.mark.parametrize(
    ("provision", "role", "what"),
    [
        ("verify", "roles/pubsub.viewer", "subscriptions/"),
        ("create", "roles/pubsub.editor", "subscriptions/"),
    ],
)
def test_provision_has_its_role(site: Site, provision: str, role: str, what: str) -> None:
    """verify without viewer and create without editor: the worker ends, and says so."""
    site.stage.environment["CONVOTIC_PROVISION"] = provision
    site.faults.grant_only(LEAST)

    printed = run_to_its_end(site, *ALONE)

    assert f"{PROJECT}/{what}" in printed
    assert "not authorized" in printed
    assert role in printed
