"""``convotic doctor`` on a real deployment: what is wrong, and the proof of the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convotic_emulator.testing import EmulatorThread
from convotic_pubsub.options import TransportOptions
from convotic_pubsub.session import Session
from tests.acceptance.commands import convotic
from tests.acceptance.stage import Stage, make_stage
from tests.support.waiting import PATIENCE

PROJECT = "projects/convotic-local"
SUBSCRIPTION = f"{PROJECT}/subscriptions/custom.orders.new.shop"
DEAD_LETTERS = "custom.orders.new.shop.dead-letter"


class Ward:
    """A deployment on an emulator whose rights the test revokes."""

    def __init__(self, stage: Stage, emulator: EmulatorThread) -> None:
        self.stage = stage
        self.emulator = emulator

    def examine(self, *arguments: str, code: int) -> list[dict[str, Any]]:
        """Run the doctor and return its findings."""
        done = convotic(self.stage, "doctor", "--json", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return findings

    def session(self) -> Session:
        """Return a session of the test's own."""
        return Session(
            TransportOptions(project="convotic-local", emulator_host=self.emulator.address)
        )


@pytest.fixture
def ward(tmp_path: Path, data_dir: Path) -> Iterator[Ward]:
    """A deployment whose topology is applied."""
    with EmulatorThread() as emulator:
        stage = make_stage(tmp_path, data_dir, emulator.address)
        stage.project = "convotic-local"
        stage.environment["CONVOTIC_BROKER_URL"] = "pubsub://convotic-local"
        stage.environment["CONVOTIC_PROVISION"] = "verify"
        applied = convotic(stage, "topology", "apply", "--yes")
        assert applied.returncode == 0, applied.stderr
        yield Ward(stage, emulator)


def chosen(findings: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    """Return the findings of one check."""
    return [each for each in findings if each["check"] == check]


def test_a_sound_deployment(ward: Ward) -> None:
    """Exit code 0, each check says so, and a message went through dead-lettering and replay."""
    findings = ward.examine("--timeout", str(PATIENCE), code=0)

    assert {each["check"] for each in findings} == {
        "versions",
        "clock",
        "store",
        "credentials",
        "topology",
        "rights",
        "dead-letter IAM",
        "retention",
        "control",
        "probe",
    }
    (probe,) = chosen(findings, "probe")
    assert probe["level"] == "ok"
    assert "dead-lettered after" in probe["text"]
    assert "processed under its id" in probe["text"]
    session = ward.session()
    try:
        left = [each.name for each in session.admin.list_topics() if "doctor" in each.name]
        left += [each.name for each in session.admin.list_subscriptions() if "doctor" in each.name]
    finally:
        session.close()
    assert left == []


@pytest.mark.parametrize(
    ("resource", "role", "permission", "level"),
    [
        (SUBSCRIPTION, "roles/pubsub.subscriber", "pubsub.subscriptions.consume", "error"),
        (
            f"{PROJECT}/topics/{DEAD_LETTERS}",
            "roles/pubsub.publisher",
            "pubsub.topics.publish",
            "error",
        ),
        (
            f"{PROJECT}/topics/custom.orders.new",
            "roles/pubsub.publisher",
            "pubsub.topics.publish",
            "warning",
        ),
    ],
)
def test_a_permission_that_is_missing_is_named_with_its_binding(
    ward: Ward, resource: str, role: str, permission: str, level: str
) -> None:
    """Revoked in the emulator: what is missing where, why it matters, and what grants it."""
    ward.emulator.faults.deny(resource, permission)

    findings = ward.examine("--no-probe", "--strict", code=1)

    (finding,) = chosen(findings, "rights")
    name, kind = resource.rpartition("/")[2], resource.split("/")[2]
    assert finding["level"] == level
    assert finding["text"].startswith(f"{permission} is missing on {name}, ")
    assert finding["remedy"] == (
        f"gcloud pubsub {kind} add-iam-policy-binding {name} --project=convotic-local "
        f"--member=serviceAccount:WORKERS_SERVICE_ACCOUNT --role={role}"
    )


def test_what_may_not_be_seen_is_said(ward: Ward) -> None:
    """Without the right to list: no orphans; without that to look: nothing can be compared."""
    ward.emulator.faults.deny(PROJECT, "pubsub.topics.list")
    (note,) = [
        each
        for each in chosen(ward.examine("--no-probe", code=0), "topology")
        if each["level"] != "ok"
    ]
    assert "roles/pubsub.viewer" in note["remedy"]

    ward.emulator.faults.grant_only({})
    (error,) = chosen(ward.examine("--no-probe", code=1), "topology")
    assert "roles/pubsub.viewer" in error["remedy"]


def test_a_probe_that_may_not_create_says_so(ward: Ward) -> None:
    """It is no fault of the deployment, but nothing is proved."""
    ward.emulator.faults.deny(PROJECT, "pubsub.topics.create")

    (probe,) = chosen(ward.examine(code=0), "probe")

    assert probe["level"] == "warning"
    assert "could not be tested" in probe["text"]
    assert "roles/pubsub.editor" in probe["remedy"]


def test_dead_letters_that_nobody_keeps(ward: Ward) -> None:
    """A dead-letter topic without subscription loses what is sent there."""
    session = ward.session()
    try:
        session.admin.delete_subscription(f"{PROJECT}/subscriptions/{DEAD_LETTERS}")
    finally:
        session.close()

    findings = ward.examine("--no-probe", code=1)

    (lost,) = chosen(findings, "dead letters")
    assert lost["text"] == (
        f"dead-letter topic {DEAD_LETTERS} has no subscription: dead letters are lost"
    )
    assert lost["remedy"] == "convotic topology apply"


def test_a_killed_worker_s_control_subscription_is_swept(ward: Ward) -> None:
    """Its process is gone, and so is its lock."""
    with ward.stage.worker() as worker:
        worker.child.kill()

    (finding,) = chosen(ward.examine("--no-probe", code=0), "control")

    assert finding["text"].startswith("deleted what killed processes of this host have left: ")
    assert "celery.control." in finding["text"]
    (again,) = chosen(ward.examine("--no-probe", code=0), "control")
    assert "every control subscription of this host has its process" in again["text"]


def test_people_read_it(ward: Ward) -> None:
    """A line each, with what to do below, and a sum."""
    ward.emulator.faults.deny(SUBSCRIPTION, "roles/pubsub.subscriber")

    done = convotic(ward.stage, "doctor", "--no-probe")

    assert done.returncode == 1
    assert "error    rights           pubsub.subscriptions.consume is missing on" in done.stdout
    assert "\n                          To do: gcloud pubsub subscriptions" in done.stdout
    assert done.stdout.endswith("\n1 error, 0 warnings\n")


def test_a_store_that_is_not_there(ward: Ward) -> None:
    """The doctor says so, and goes on with the rest."""
    ward.stage.environment["CONVOTIC_REDIS_URL"] = "redis://user:hidden@127.0.0.1:1/0"

    done = convotic(ward.stage, "doctor", "--no-probe")

    assert done.returncode == 1
    assert "error    store" in done.stdout
    assert "ok       topology" in done.stdout
    assert "hidden" not in done.stdout + done.stderr
