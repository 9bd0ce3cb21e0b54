"""The topology as Terraform's HCL."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from convotic_celery.topology.desired import make_desired
from convotic_celery.topology.rights import CONTROL_PERMISSIONS
from convotic_celery.topology.terraform import make_terraform
from tests.unit.topology.test_plan import make_options

HCL = make_terraform(
    make_desired(
        replace(
            make_options(filter='attributes.source = "${a}"', enable_message_ordering=True),
            labels={"team": "shop"},
            message_storage_regions=["europe-west1"],
        )
    ),
    control_permissions=CONTROL_PERMISSIONS,
)


#: What the provider takes, and where: the required arguments, and the optional ones that are used.
#: Read from npm's @cdktf/provider-google 16.12.1 (provider 6.50) and from PyPI's pulumi-gcp, which
#: has no deletion_policy up to 9.23.0, and has it from 9.24.0 on (9.27.0 is provider 7.36).
SCHEMA: dict[str, tuple[set[str], set[str]]] = {
    "google_pubsub_topic": ({"name"}, {"project", "labels", "message_storage_policy"}),
    "message_storage_policy": ({"allowed_persistence_regions"}, set()),
    "google_pubsub_subscription": (
        {"name", "topic"},
        {
            "ack_deadline_seconds",
            "dead_letter_policy",
            "deletion_policy",
            "enable_exactly_once_delivery",
            "enable_message_ordering",
            "expiration_policy",
            "filter",
            "labels",
            "message_retention_duration",
            "project",
        },
    ),
    "expiration_policy": ({"ttl"}, set()),
    "dead_letter_policy": (set(), {"dead_letter_topic", "max_delivery_attempts"}),
    "google_pubsub_subscription_iam_member": ({"member", "role", "subscription"}, {"project"}),
    "google_pubsub_topic_iam_member": ({"member", "role", "topic"}, {"project"}),
    "google_project_iam_custom_role": ({"permissions", "role_id", "title"}, {"project"}),
    "google_project_iam_member": ({"member", "project", "role"}, set()),
}
#: Terraform's own.
META = {"count", "for_each", "lifecycle"}


def test_the_provider_takes_every_argument() -> None:
    """None is unknown to it, and none that it requires is missing; in nested blocks, too."""
    found = set()
    for kind, body in re.findall(r'resource "(\w+)" "[^"]+" {\n(.*?)\n}\n', HCL, re.DOTALL):
        nested = dict(re.findall(r"(?ms)^  (\w+) {\n(.*?)\n  }", body))
        nested.pop("lifecycle", None)
        for name, text in {kind: re.sub(r"(?m)^ {3,}.*$", "", body), **nested}.items():
            given = set(re.findall(r"(?m)^ +([a-z_]+) *[={]", text)) - META
            required, optional = SCHEMA[name]
            assert required <= given <= required | optional, name
            found.add(name)

    assert found == SCHEMA.keys()


def block(kind: str, name: str) -> str:
    """Return one resource's block."""
    match = re.search(rf'resource "{kind}" "{name}" {{\n.*?\n}}\n', HCL, re.DOTALL)
    assert match, f"no {kind} {name}"
    return match[0]


@pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not installed")
def test_it_is_formatted_as_terraform_does(tmp_path: Path) -> None:
    """`terraform fmt -check` has nothing to say, so it is valid HCL too."""
    (tmp_path / "main.tf").write_text(HCL)

    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_subscription_has_all_its_settings() -> None:
    """What the worker would create, and a template in a filter is none."""
    assert block("google_pubsub_subscription", "orders_crm").split("\n") == [
        'resource "google_pubsub_subscription" "orders_crm" {',
        "  project                      = var.project",
        '  name                         = "orders.crm"',
        "  topic                        = google_pubsub_topic.orders.id",
        "  ack_deadline_seconds         = 30",
        '  message_retention_duration   = "604800s"',
        "  enable_message_ordering      = true",
        "  enable_exactly_once_delivery = false",
        '  deletion_policy              = "PREVENT"',
        '  filter                       = "attributes.source = \\"$${a}\\""',
        "",
        "  labels = {",
        '    "convotic" = "handler"',
        '    "team"     = "shop"',
        "  }",
        "",
        "  expiration_policy {",
        '    ttl = "" # never',
        "  }",
        "",
        "  dead_letter_policy {",
        "    dead_letter_topic     = google_pubsub_topic.orders_crm_dead-letter.id",
        "    max_delivery_attempts = 18",
        "  }",
        "}",
        "",
    ]


def test_nothing_is_destroyed_by_accident() -> None:
    """Every subscription prevents it, every topic too."""
    subscriptions = HCL.count('resource "google_pubsub_subscription" ')
    topics = HCL.count('resource "google_pubsub_topic" ')

    assert HCL.count('deletion_policy              = "PREVENT"') == subscriptions == 4
    assert HCL.count("prevent_destroy = true") == topics == 6


def test_dead_lettering_has_its_bindings_and_keeps_them() -> None:
    """The service's account may publish dead letters and take from the source."""
    publisher = block("google_pubsub_topic_iam_member", "orders_crm_dead-letter_agent")
    subscriber = block("google_pubsub_subscription_iam_member", "orders_crm_agent")

    assert "local.pubsub_agent" in publisher
    assert "roles/pubsub.publisher" in publisher
    assert "roles/pubsub.subscriber" in subscriber
    assert "replace_triggered_by = [google_pubsub_subscription.orders_crm.id]" in subscriber
    assert 'resource "google_pubsub_topic_iam_member" "orders_agent"' not in HCL


def test_a_full_name_is_another_project_s() -> None:
    """Its topic is named as it is, in its own project."""
    options = make_options(topic="projects/other-one/topics/orders")

    text = make_terraform(make_desired(options), control_permissions=CONTROL_PERMISSIONS)

    assert 'project = "other-one"' in text
