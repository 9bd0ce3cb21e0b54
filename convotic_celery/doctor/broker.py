"""Topics and subscriptions, and how long messages are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from convotic_celery.doctor.finding import Finding
from convotic_celery.topology.actual import read_backlogs
from convotic_celery.topology.plan import AddBinding, Create, Replace, make_plan
from convotic_celery.topology.text import format_age
from convotic_pubsub.topology import SubscriptionSettings

if TYPE_CHECKING:
    from convotic_celery.topology.plan import Plan, Step
    from convotic_celery.topology.values import Actual, Desired
    from convotic_pubsub.client.backlog_size import BacklogSize
    from convotic_pubsub.options import Provision
    from convotic_pubsub.session import Session

__all__ = ["check_retention", "check_topology", "judge_plan"]

_APPLY: Final = "convotic topology apply"


def check_topology(
    session: Session, desired: Desired, actual: Actual, provision: Provision
) -> Iterator[Finding]:
    """Compare what exists with what the modules need."""
    plan = make_plan(desired, actual)
    backlogs = read_backlogs(
        session, (each.name for each in plan.orphans if each.kind == "subscription")
    )
    yield from judge_plan(plan, backlogs, provision)
    if not actual.is_complete:
        yield Finding(
            "topology",
            "note",
            "orphans are not known: this account may not list topics and subscriptions",
            "give this account roles/pubsub.viewer on the project",
        )
    yield from _find_lost_dead_letters(desired, actual)


def judge_plan(
    plan: Plan, backlogs: Mapping[str, BacklogSize], provision: Provision
) -> Iterator[Finding]:
    """Yield a finding for each difference. Pure.

    Args:
        plan: what would be changed.
        backlogs: how many messages orphans have, where that is known.
        provision: ``create``: workers make what is missing when they start.
    """
    for step in plan.steps:
        if not isinstance(step, AddBinding):  # the rights' check has these
            yield _judge_step(step, provision)
    for problem in plan.problems:
        yield Finding(
            "topology", "error", f"{_short(problem.name)}: {problem.text}", problem.remedy
        )
    for orphan in plan.orphans:
        size = backlogs.get(orphan.name)
        held = f" and holds {size.messages:,} messages" if size and size.messages else ""
        yield Finding(
            "topology",
            "warning" if held else "note",
            f"{orphan.kind} {_short(orphan.name)} was made for a handler that no module has{held}",
            f"convotic topology apply --delete {_short(orphan.name)}, if it is not needed",
        )
    if not plan.steps and not plan.problems:
        yield Finding("topology", "ok", "topics and subscriptions are as the modules need them")


def _judge_step(step: Step, provision: Provision) -> Finding:
    assert not isinstance(step, AddBinding)
    kind = "subscription" if isinstance(step.wanted, SubscriptionSettings) else "topic"
    name = _short(step.wanted.name)
    if isinstance(step, Create):
        text = f"{kind} {name} does not exist"
        if provision == "create":
            return Finding(
                "topology", "note", f"{text}; a worker creates it when it starts", _APPLY
            )
        return Finding("topology", "error", text, _APPLY)
    if isinstance(step, Replace) and step.is_resumed:
        text = f"the replacement of {kind} {name} was cut short; its messages are safe"
        return Finding("topology", "error", text, _APPLY)
    differences = "; ".join(map(str, step.differences))
    return Finding("topology", "warning", f"{kind} {name}: {differences}", _APPLY)


def _find_lost_dead_letters(desired: Desired, actual: Actual) -> Iterator[Finding]:
    """Yield dead-letter topics without a subscription: dead letters sent there are lost."""
    subscribed = {each.topic for each in actual.subscriptions.values() if not each.is_detached}
    topics = {each.dead_letter_topic for each in desired.subscriptions} - {""}
    for topic in sorted(topics & actual.topics.keys() - subscribed):
        yield Finding(
            "dead letters",
            "error",
            f"dead-letter topic {_short(topic)} has no subscription: dead letters are lost",
            _APPLY,
        )


def check_retention(
    desired: Desired, actual: Actual, backlogs: Mapping[str, BacklogSize]
) -> Iterable[Finding]:
    """Yield subscriptions whose oldest message is near the end of its retention. Pure."""
    found = []
    for wanted in desired.subscriptions:
        existing, size = actual.subscriptions.get(wanted.name), backlogs.get(wanted.name)
        if existing is None or size is None or size.oldest_age_seconds is None:
            continue
        kept = existing.message_retention_seconds
        if size.oldest_age_seconds * 2 < kept:
            continue
        left = format_age(max(0.0, kept - size.oldest_age_seconds))
        is_late = size.oldest_age_seconds > kept * 0.9
        found.append(
            Finding(
                "retention",
                "error" if is_late else "warning",
                f"{_short(wanted.name)} has {size.messages:,} messages, the oldest "
                f"{format_age(size.oldest_age_seconds)} old; Pub/Sub drops it in {left}",
                "start workers, or replay dead letters (convotic dlq); retention= keeps messages "
                "longer, up to 31 days",
            )
        )
    known = any(size.oldest_age_seconds is not None for size in backlogs.values())
    if not found:
        text = "no message is older than half its retention"
        if backlogs and not known and any(size.messages for size in backlogs.values()):
            return [Finding("retention", "note", "the age of messages is not known", "")]
        if not backlogs:
            text = "the number of messages is not known"
            remedy = "give this account roles/monitoring.viewer"
            return [Finding("retention", "note", text, remedy)]
        return [Finding("retention", "ok", text)]
    return found


def _short(path: str) -> str:
    return path.rpartition("/")[2]
