"""The wanted topology as Terraform's HCL, formatted as ``terraform fmt`` does. Pure.

Attributes are those of the provider ``hashicorp/google`` from 7.36 on: earlier ones of 7 have no
``deletion_policy`` for subscriptions, and refuse the file. Nothing that Terraform does by itself
deletes messages: subscriptions have ``deletion_policy = "PREVENT"``, topics ``prevent_destroy``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from convotic_celery.topology.values import AGENT_DOMAIN, PUBLISHER, SUBSCRIBER

if TYPE_CHECKING:
    from convotic_celery.topology.values import Desired
    from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

__all__ = ["make_terraform"]

#: Attributes: HCL expressions by name; None stands for an empty line, which parts alignments.
Attributes: TypeAlias = Mapping[str, str]

_HEAD: Final = """\
# Written by `convotic topology export terraform`: the topics and subscriptions of the handlers.
# Workers run beside it with CONVOTIC_PROVISION=verify.

terraform {
  required_version = ">= 1.3"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.36"
    }
  }
}

variable "project" {
  description = "Google Cloud project id."
  type        = string
  default     = PROJECT
}

variable "worker_service_account" {
  description = "E-mail address of the workers' service account; null if it already has its roles."
  type        = string
  default     = null
}

data "google_project" "this" {
  project_id = var.project
}

locals {
  # Pub/Sub itself, which forwards dead letters.
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@AGENTS"
  workers = toset([
    for email in [var.worker_service_account] : "serviceAccount:${email}" if email != null
  ])
}
"""

#: What a worker with CONVOTIC_PROVISION=off needs for its own control subscription.
_CONTROL: Final = """\
# Each worker makes and deletes a subscription of its own on the control topics.
resource "google_project_iam_custom_role" "convotic_control" {
  count   = var.worker_service_account == null ? 0 : 1
  project = var.project
  role_id = "convoticControlSubscriptions"
  title   = "Convotic control subscriptions"
  permissions = CONTROL_PERMISSIONS
}

resource "google_project_iam_member" "convotic_control" {
  count   = var.worker_service_account == null ? 0 : 1
  project = var.project
  role    = google_project_iam_custom_role.convotic_control[0].id
  member  = "serviceAccount:${var.worker_service_account}"
}
"""


def make_terraform(desired: Desired, *, control_permissions: Iterable[str]) -> str:
    """Return the topology as one HCL file.

    Args:
        desired: what the handlers need.
        control_permissions: what a worker needs on the project for its control subscription.
    """
    permissions = json.dumps(sorted(control_permissions), indent=4).replace("\n]", ",\n  ]")
    blocks = [
        _HEAD.replace("AGENTS", AGENT_DOMAIN).replace("= PROJECT", f"= {_quote(desired.project)}"),
        *(_topic_block(topic, desired) for topic in desired.topics),
    ]
    for subscription in desired.subscriptions:
        blocks.append(_subscription_block(subscription, desired))
        blocks += _subscription_bindings(subscription, desired)
    for topic in desired.topics:
        blocks += _topic_bindings(topic.name, desired)
    blocks.append(_CONTROL.replace("CONTROL_PERMISSIONS", permissions))
    return "\n".join(blocks)


def _topic_block(topic: TopicSettings, desired: Desired) -> str:
    lines = list(_aligned({"project": _project(topic.name, desired), "name": _name(topic.name)}))
    lines += ["", *_labels(topic.labels)]
    if topic.message_storage_regions:
        regions = ", ".join(map(_quote, topic.message_storage_regions))
        lines += [
            "",
            "message_storage_policy {",
            f"  allowed_persistence_regions = [{regions}]",
            "}",
        ]
    lines += ["", "lifecycle {", "  prevent_destroy = true", "}"]
    return _block("google_pubsub_topic", _identifier(topic.name), lines)


def _subscription_block(subscription: SubscriptionSettings, desired: Desired) -> str:
    attributes = {
        "project": _project(subscription.name, desired),
        "name": _name(subscription.name),
        "topic": _topic_reference(subscription.topic, desired),
        "ack_deadline_seconds": str(subscription.ack_deadline_seconds),
        "message_retention_duration": f'"{subscription.message_retention_seconds}s"',
        "enable_message_ordering": _bool(subscription.enable_message_ordering),
        "enable_exactly_once_delivery": _bool(subscription.enable_exactly_once_delivery),
        "deletion_policy": '"PREVENT"',
    }
    if subscription.filter:
        attributes["filter"] = _quote(subscription.filter)
    lines = [*_aligned(attributes), "", *_labels(subscription.labels)]
    ttl = f"{subscription.expiration_seconds}s" if subscription.expiration_seconds else ""
    lines += ["", "expiration_policy {", f'  ttl = "{ttl}"{"" if ttl else " # never"}', "}"]
    if subscription.dead_letter_topic:
        policy = {
            "dead_letter_topic": _topic_reference(subscription.dead_letter_topic, desired),
            "max_delivery_attempts": str(subscription.max_delivery_attempts),
        }
        lines += ["", "dead_letter_policy {", *(f"  {line}" for line in _aligned(policy)), "}"]
    return _block("google_pubsub_subscription", _identifier(subscription.name), lines)


def _subscription_bindings(subscription: SubscriptionSettings, desired: Desired) -> Iterator[str]:
    """Yield who may pull from a subscription; bound again if Terraform replaces it."""
    name = _identifier(subscription.name)
    common = {
        "project": _project(subscription.name, desired),
        "subscription": f"google_pubsub_subscription.{name}.name",
        "role": _quote(SUBSCRIBER),
    }
    replaced = f"google_pubsub_subscription.{name}.id"
    if subscription.dead_letter_topic:
        yield _member_block(
            "google_pubsub_subscription_iam_member",
            f"{name}_agent",
            {**common, "member": "local.pubsub_agent"},
            replaced,
        )
    yield _member_block(
        "google_pubsub_subscription_iam_member",
        f"{name}_worker",
        {"for_each": "local.workers", **common, "member": "each.value"},
        replaced,
    )


def _topic_bindings(topic: str, desired: Desired) -> Iterator[str]:
    """Yield who may publish to a topic."""
    name = _identifier(topic)
    common = {
        "project": _project(topic, desired),
        "topic": f"google_pubsub_topic.{name}.name",
        "role": _quote(PUBLISHER),
    }
    replaced = f"google_pubsub_topic.{name}.id"
    if any(topic == each.dead_letter_topic for each in desired.subscriptions):
        yield _member_block(
            "google_pubsub_topic_iam_member",
            f"{name}_agent",
            {**common, "member": "local.pubsub_agent"},
            replaced,
        )
    yield _member_block(
        "google_pubsub_topic_iam_member",
        f"{name}_worker",
        {"for_each": "local.workers", **common, "member": "each.value"},
        replaced,
    )


def _member_block(kind: str, name: str, attributes: Attributes, replaced: str) -> str:
    meta = {k: v for k, v in attributes.items() if k == "for_each"}
    rest = {k: v for k, v in attributes.items() if k != "for_each"}
    lines = [*_aligned({**meta, **rest}), "", "lifecycle {"]
    lines += [f"  replace_triggered_by = [{replaced}]", "}"]
    return _block(kind, name, lines)


def _block(kind: str, name: str, lines: Iterable[str]) -> str:
    body = "\n".join(f"  {line}" if line else "" for line in lines)
    return f'resource "{kind}" "{name}" {{\n{body}\n}}\n'


def _aligned(attributes: Attributes) -> Iterator[str]:
    width = max(map(len, attributes))
    yield from (f"{name.ljust(width)} = {value}" for name, value in attributes.items())


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    yield "labels = {"
    pairs = {_quote(name): _quote(value) for name, value in sorted(labels.items())}
    yield from (f"  {line}" for line in _aligned(pairs) if pairs)
    yield "}"


def _topic_reference(path: str, desired: Desired) -> str:
    known = {topic.name for topic in desired.topics}
    return f"google_pubsub_topic.{_identifier(path)}.id" if path in known else _quote(path)


def _project(path: str, desired: Desired) -> str:
    project = path.split("/")[1]
    return "var.project" if project == desired.project else _quote(project)


def _name(path: str) -> str:
    return _quote(path.rpartition("/")[2])


def _identifier(path: str) -> str:
    """Return a resource's name in Terraform, in which only letters, digits, _ and - may be."""
    name = path.rpartition("/")[2].replace(".", "_")
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"_x{ord(match[0]):x}_", name)


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _quote(text: str) -> str:
    """Return a text as HCL's quoted string: with JSON's escapes, and templates escaped."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
