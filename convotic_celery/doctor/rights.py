"""Which permissions this account lacks, and Pub/Sub's own for the service's dead-lettering."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from convotic_celery.doctor.finding import Finding
from convotic_celery.topology.rights import worker_rights
from convotic_celery.topology.values import AGENT_DOMAIN, PUBLISHER, SUBSCRIBER
from convotic_pubsub.errors import AccessDenied, PubsubTransportError

if TYPE_CHECKING:
    from convotic_celery.topology.rights import Right
    from convotic_celery.topology.values import Actual, Desired
    from convotic_pubsub.client.admin import Admin, Binding
    from convotic_pubsub.options import Provision

__all__ = ["check_agent", "check_rights", "describe_missing", "grant_command", "has_agent"]

#: Roles that give what the agent needs, beside the least.
_MORE = frozenset({"roles/pubsub.editor", "roles/pubsub.admin", "roles/editor", "roles/owner"})


def check_rights(
    admin: Admin,
    desired: Desired,
    actual: Actual,
    provision: Provision,
    member: str,
) -> Iterator[Finding]:
    """Ask the server what this account may do on each topic and subscription.

    Args:
        admin: of the server.
        desired: what the modules need.
        actual: what exists; nothing else has permissions.
        provision: the mode of the workers.
        member: this account, as IAM has it; for the remedy.
    """
    wanted: dict[str, list[Right]] = defaultdict(list)
    for right in worker_rights(desired, provision):
        if right.resource in actual.topics or right.resource in actual.subscriptions:
            wanted[right.resource].append(right)
    found = False
    for resource, rights in wanted.items():
        try:
            missing = admin.missing_permissions(resource, {each.permission for each in rights})
        except PubsubTransportError as error:
            yield Finding("rights", "note", f"{_short(resource)}: {error}", "")
            return
        for finding in describe_missing(rights, missing, member):
            found = True
            yield finding
    if not found:
        text = f"all that CONVOTIC_PROVISION={provision} needs on {len(wanted)} resources"
        yield Finding("rights", "ok", text)


def describe_missing(
    rights: Iterable[Right], missing: Collection[str], member: str
) -> Iterator[Finding]:
    """Yield a finding for each missing permission, with the command that grants it. Pure."""
    for right in rights:
        if right.permission in missing:
            yield Finding(
                "rights",
                "error" if right.is_vital else "warning",
                f"{right.permission} is missing on {_short(right.resource)}, {right.why}",
                grant_command(right.resource, right.role, member),
            )


def grant_command(resource: str, role: str, member: str) -> str:
    """Return the gcloud command that binds a role on a topic or subscription."""
    _, project, kind, name = resource.split("/", 3)
    return (
        f"gcloud pubsub {kind} add-iam-policy-binding {name} --project={project} "
        f"--member={member} --role={role}"
    )


def check_agent(admin: Admin, desired: Desired, actual: Actual) -> Iterator[Finding]:
    """Check whether Pub/Sub itself may forward dead letters: without that right they are lost."""
    topics: set[str] = set()
    found = False
    for subscription in desired.subscriptions:
        if not subscription.dead_letter_topic or subscription.name not in actual.subscriptions:
            continue
        needs = [(subscription.name, SUBSCRIBER)]
        if subscription.dead_letter_topic in actual.topics.keys() - topics:
            topics.add(subscription.dead_letter_topic)
            needs.append((subscription.dead_letter_topic, PUBLISHER))
        for resource, role in needs:
            try:
                bindings = admin.bindings(resource)
            except AccessDenied:
                yield Finding(
                    "dead-letter IAM",
                    "note",
                    "whether Pub/Sub itself may forward dead letters is not known: policies may "
                    "not be read",
                    "give this account roles/iam.securityReviewer on the project",
                )
                return
            except PubsubTransportError as error:
                yield Finding("dead-letter IAM", "note", f"{_short(resource)}: {error}", "")
                return
            if not has_agent(bindings, role):
                found = True
                yield _agent_missing(resource, role, is_emulated=actual.is_emulated)
                if actual.is_emulated:
                    return  # nothing enforces it there: once is enough
    if not found:
        yield Finding("dead-letter IAM", "ok", "Pub/Sub itself may forward dead letters")


def has_agent(bindings: Iterable[Binding], role: str) -> bool:
    """Whether a policy gives a project's Pub/Sub account a role, or a larger one. Pure."""
    return any(
        each.role in {role, *_MORE}
        and not each.is_conditional
        and any(member.endswith(f"@{AGENT_DOMAIN}") for member in each.members)
        for each in bindings
    )


def _agent_missing(resource: str, role: str, *, is_emulated: bool) -> Finding:
    member = f"serviceAccount:service-PROJECT_NUMBER@{AGENT_DOMAIN}"
    text = f"{_short(resource)} has no binding of {role} for Pub/Sub's own account"
    if is_emulated:
        return Finding(
            "dead-letter IAM",
            "note",
            f"{text}, like others; an emulator forwards dead letters without",
            "on the service: convotic topology apply --project-number NUMBER",
        )
    return Finding(
        "dead-letter IAM",
        "warning",
        f"{text}: unless the project has one, the service forwards no dead letters, silently (ours "
        "don't need it)",
        grant_command(resource, role, member),
    )


def _short(path: str) -> str:
    return path.rpartition("/")[2]
