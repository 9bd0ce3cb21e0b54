"""The difference between what is wanted and what exists, as steps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from convotic_celery.topology.values import Actual, Desired, WantedBinding, replacement_of
from convotic_pubsub.topology import (
    FIXED_FIELDS,
    Difference,
    SubscriptionSettings,
    TopicSettings,
    subscription_differences,
    topic_differences,
)

if TYPE_CHECKING:
    from convotic_pubsub.client.admin import Binding

__all__ = [
    "AddBinding",
    "Create",
    "Orphan",
    "Plan",
    "Problem",
    "Replace",
    "Step",
    "Update",
    "find_orphans",
    "make_plan",
]

#: The label of what was made for a handler. Other resources are left alone.
_OUR_LABEL: Final = ("convotic", "handler")


@dataclass(frozen=True, slots=True)
class Create:
    """Something is missing."""

    wanted: TopicSettings | SubscriptionSettings


@dataclass(frozen=True, slots=True)
class Update:
    """Something has other settings, which can be changed in place."""

    wanted: TopicSettings | SubscriptionSettings
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """A subscription has other settings that can't be changed, or its replacement was cut short."""

    wanted: SubscriptionSettings
    differences: tuple[Difference, ...]
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class AddBinding:
    """The service's own dead-lettering lacks a right."""

    binding: WantedBinding


Step: TypeAlias = Create | Update | Replace | AddBinding


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that was made for a queue which no loaded module has."""

    kind: Literal["subscription", "topic"]
    name: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference that a plan can't remove; ``remedy`` says what can."""

    name: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order, and what people must decide."""

    steps: tuple[Step, ...]
    orphans: tuple[Orphan, ...] = ()
    problems: tuple[Problem, ...] = ()


def make_plan(desired: Desired, actual: Actual) -> Plan:
    """Compare what is wanted with what exists."""
    steps: list[Step] = []
    problems: list[Problem] = []
    for topic in desired.topics:
        steps += _topic_steps(topic, actual)
    for wanted in desired.subscriptions:
        found = _subscription_steps(wanted, actual)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            steps += found
    steps += _binding_steps(desired.bindings, actual.bindings)
    return Plan(tuple(steps), tuple(find_orphans(desired, actual)), tuple(problems))


def _topic_steps(wanted: TopicSettings, actual: Actual) -> list[Step]:
    existing = actual.topics.get(wanted.name)
    if existing is None:
        return [Create(wanted)]
    differences = topic_differences(wanted, existing)
    return [Update(wanted, tuple(differences))] if differences else []


def _subscription_steps(wanted: SubscriptionSettings, actual: Actual) -> list[Step] | Problem:
    existing = actual.subscriptions.get(wanted.name)
    if replacement_of(wanted.name) in actual.subscriptions:
        return [Replace(wanted, (), is_resumed=True)]
    if existing is None:
        return [Create(wanted)]
    differences = subscription_differences(wanted, existing, is_emulated=actual.is_emulated)
    if (problem := _find_problem(wanted, existing)) is not None:
        return problem
    if any(each.setting in FIXED_FIELDS for each in differences):
        return [Replace(wanted, tuple(differences))]
    return [Update(wanted, tuple(differences))] if differences else []


def _find_problem(wanted: SubscriptionSettings, existing: SubscriptionSettings) -> Problem | None:
    """Return why only its owner should touch a subscription."""
    name = wanted.name
    if existing.topic != wanted.topic:
        return Problem(
            name,
            f"it belongs to {existing.topic}, not to {wanted.topic}",
            "give the handler another subscription=, or delete it: its messages go with it",
        )
    if existing.is_detached:
        return Problem(
            name, "it is detached from its topic, so nothing arrives", "delete it and apply again"
        )
    if existing.push_endpoint:
        return Problem(
            name,
            f"it pushes to {existing.push_endpoint}, so no worker can pull from it",
            f"gcloud pubsub subscriptions modify-push-config {name} --push-endpoint=",
        )
    return None


def _binding_steps(
    wanted: Iterable[WantedBinding], existing: Mapping[str, tuple[Binding, ...]]
) -> list[Step]:
    return [
        AddBinding(each)
        for each in wanted
        if not any(
            each.role == found.role and each.member in found.members and not found.is_conditional
            for found in existing.get(each.resource, ())
        )
    ]


def find_orphans(desired: Desired, actual: Actual) -> Iterable[Orphan]:
    """Yield what was made for a handler, but no loaded module needs; subscriptions first."""
    wanted = {each.name for each in desired.topics}
    wanted |= {each.name for each in desired.subscriptions}
    wanted |= {replacement_of(each.name) for each in desired.subscriptions}

    def is_orphan(found: TopicSettings | SubscriptionSettings) -> bool:
        _, project, _, short = found.name.split("/", 3)
        is_of_this_app = project == desired.project and short.startswith(desired.prefix)
        is_ours = _OUR_LABEL in found.labels.items()
        return is_of_this_app and is_ours and found.name not in wanted

    for name in sorted(each.name for each in actual.subscriptions.values() if is_orphan(each)):
        yield Orphan("subscription", name)
    for name in sorted(each.name for each in actual.topics.values() if is_orphan(each)):
        yield Orphan("topic", name)
