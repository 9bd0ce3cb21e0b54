"""Formats a plan: for people, and as JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from convotic_celery.topology.plan import AddBinding, Create, Replace, Step, Update
from convotic_celery.topology.replacement import REPLACEMENT_STEPS
from convotic_celery.topology.values import replacement_of
from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

if TYPE_CHECKING:
    from convotic_celery.topology.plan import Orphan, Plan
    from convotic_pubsub.client.backlog_size import BacklogSize
    from convotic_pubsub.topology import Difference

__all__ = ["describe_plan", "format_age", "format_plan", "shorten_names"]

#: A difference of more characters is shown on lines of its own.
_LONG = 90
_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def format_plan(plan: Plan, backlogs: Mapping[str, BacklogSize], project: str) -> str:
    """Return a plan as a person reads it.

    Args:
        plan: what is to be done.
        project: whose resources get short names.
        backlogs: how many messages orphans have, where that is known.
    """
    lines = [line for step in plan.steps for line in _step_lines(step)]
    for problem in plan.problems:
        lines += [f"! {problem.name}", f"    {problem.text}", f"    To do: {problem.remedy}."]
    if plan.orphans:
        lines += ["", "No loaded module has these (they are left alone):"]
        lines += [f"  {o.kind:<12} {o.name}{_backlog(backlogs.get(o.name))}" for o in plan.orphans]
        lines.append("Delete one with: convotic topology apply --delete NAME")
    return shorten_names("\n".join(lines).strip("\n"), project)


def shorten_names(text: str, project: str) -> str:
    """Return a text with short names of the project's resources."""
    return re.sub(rf"\bprojects/{re.escape(project)}/(topics|subscriptions|snapshots)/", "", text)


def _step_lines(step: Step) -> Iterator[str]:
    match step:
        case Create(TopicSettings() as wanted):
            yield f"+ topic        {wanted.name}"
        case Create(SubscriptionSettings() as wanted):
            yield f"+ subscription {wanted.name}"
            yield from (f"    {line}" for line in _settings(wanted))
        case Update(wanted, differences):
            yield f"~ {_kind(wanted):<12} {wanted.name}"
            yield from _differences(differences)
        case Replace(wanted, differences, is_resumed):
            yield f"± subscription {wanted.name}"
            yield from _differences(differences)
            yield (
                "    Its replacement was cut short, or is under way; this continues it:"
                if is_resumed
                else "    Pub/Sub can't change this in place. It is replaced; no message is lost:"
            )
            names = {"name": _short(wanted.name), "second": _short(replacement_of(wanted.name))}
            yield from (
                f"      {number}. {text.format(**names)}"
                for number, text in enumerate(REPLACEMENT_STEPS, 1)
            )
            yield "    Messages acknowledged between 3 and 5 are delivered again, with the same id:"
            yield "    for a handler without deduplicate=, `convotic pause` it first."
        case AddBinding(binding):
            yield f"+ binding      {binding.role} on {binding.resource}"
            yield f"    for {binding.member}"


def _kind(settings: TopicSettings | SubscriptionSettings) -> str:
    return "topic" if isinstance(settings, TopicSettings) else "subscription"


def _short(path: str) -> str:
    return path.rpartition("/")[2]


def _settings(wanted: SubscriptionSettings) -> Iterator[str]:
    """Describe a new subscription."""
    kept = format_age(wanted.message_retention_seconds)
    deadline = f"ack deadline {wanted.ack_deadline_seconds} s"
    yield f"of {_short(wanted.topic)}, {deadline}, keeps messages {kept}"
    if wanted.filter:
        yield f"filter {wanted.filter}"
    flags = {
        "ordered by key": wanted.enable_message_ordering,
        "exactly-once delivery": wanted.enable_exactly_once_delivery,
    }
    if any(flags.values()):
        yield ", ".join(name for name, is_set in flags.items() if is_set)
    if wanted.dead_letter_topic:
        yield (
            f"dead letters to {_short(wanted.dead_letter_topic)}, by the service itself after "
            f"{wanted.max_delivery_attempts} deliveries"
        )


def _differences(differences: Iterable[Difference]) -> Iterator[str]:
    for each in differences:
        if len(str(each)) <= _LONG:
            yield f"    {each}"
        else:
            yield f"    {each.setting}"
            yield f"      is     {each.existing}"
            yield f"      wanted {each.wanted}"


def _backlog(size: BacklogSize | None) -> str:
    if size is None:
        return ""
    text = f"  {size.messages:,} message{'' if size.messages == 1 else 's'}"
    if size.oldest_age_seconds is not None:
        text += f", the oldest {format_age(size.oldest_age_seconds)} old"
    return text


def format_age(seconds: float) -> str:
    """Return a duration in its largest whole unit: ``7 days``, ``90 seconds``."""
    for unit, size in _UNITS:
        count = int(seconds // size)
        if count > 1 or (count == 1 and seconds % size == 0) or size == 1:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError


def describe_plan(plan: Plan, backlogs: Mapping[str, BacklogSize]) -> dict[str, Any]:
    """Return a plan as plain JSON."""
    return {
        "changes": [_describe_step(step) for step in plan.steps],
        "problems": [asdict(problem) for problem in plan.problems],
        "orphans": [_describe_orphan(orphan, backlogs.get(orphan.name)) for orphan in plan.orphans],
    }


def _describe_step(step: Step) -> dict[str, Any]:
    if isinstance(step, AddBinding):
        return {"action": "bind", **asdict(step.binding)}
    found: dict[str, Any] = {
        "action": type(step).__name__.lower(),
        "kind": _kind(step.wanted),
        "name": step.wanted.name,
    }
    if isinstance(step, Create):
        return {**found, "settings": asdict(step.wanted)}
    found["differences"] = [asdict(each) for each in step.differences]
    return found


def _describe_orphan(orphan: Orphan, size: BacklogSize | None) -> dict[str, Any]:
    return {
        "kind": orphan.kind,
        "name": orphan.name,
        "messages": None if size is None else size.messages,
        "oldest_age_seconds": None if size is None else size.oldest_age_seconds,
    }
