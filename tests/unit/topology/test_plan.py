"""The difference between what is wanted and what exists, and how it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from convotic_celery.topology.desired import make_desired
from convotic_celery.topology.plan import (
    AddBinding,
    Create,
    Orphan,
    Plan,
    Replace,
    Update,
    make_plan,
)
from convotic_celery.topology.text import describe_plan, format_age, format_plan
from convotic_celery.topology.values import (
    MIGRATION_LABEL,
    Actual,
    Desired,
    replacement_of,
    service_agent,
    snapshot_of,
)
from convotic_pubsub.client.admin import Binding
from convotic_pubsub.client.backlog_size import BacklogSize
from convotic_pubsub.options import TransportOptions
from convotic_pubsub.queue import QueueSpec
from convotic_pubsub.topology import SubscriptionSettings, TopicSettings

PROJECT = "projects/shop"
NAME = f"{PROJECT}/subscriptions/orders.crm"


class Policy:
    def decide(self, received: Any) -> Any:
        raise NotImplementedError


def make_options(**changes: Any) -> TransportOptions:
    spec = QueueSpec(
        queue="orders.crm",
        topic="orders",
        subscription="orders.crm",
        policy=Policy(),
        filter='attributes:"kind"',
        dead_letter_topic="orders.crm.dead-letter",
        max_delivery_attempts=18,
        labels={"convotic": "handler"},
    )
    spec = replace(spec, **changes)
    return TransportOptions(project="shop", queues={spec.queue: spec})


def found(desired: Desired, **changes: Any) -> Actual:
    """Return what exists if everything is as wanted, but for some changes of the subscription."""
    subscriptions = {each.name: each for each in desired.subscriptions}
    subscriptions[NAME] = replace(subscriptions[NAME], **changes)
    bindings = {
        each.resource: (Binding(each.role, frozenset({each.member})),) for each in desired.bindings
    }
    return Actual({each.name: each for each in desired.topics}, subscriptions, bindings=bindings)


DESIRED = make_desired(make_options())
WANTED = next(each for each in DESIRED.subscriptions if each.name == NAME)


def test_nothing_exists() -> None:
    """Everything is created: topics first, dead letters' subscriptions before those they serve."""
    plan = make_plan(DESIRED, Actual({}, {}))

    assert all(isinstance(step, Create) for step in plan.steps)
    names = [step.wanted.name for step in plan.steps if isinstance(step, Create)]
    assert names == [each.name for each in DESIRED.topics] + [
        f"{PROJECT}/subscriptions/orders.crm.dead-letter",
        NAME,
        f"{PROJECT}/subscriptions/celery.dead-letter",
        f"{PROJECT}/subscriptions/celery",
    ]
    assert f"{PROJECT}/topics/celery.control" in names


def test_everything_is_as_wanted() -> None:
    """No step, no orphan, no text."""
    plan = make_plan(DESIRED, found(DESIRED))

    assert plan == Plan(())
    assert format_plan(plan, {}, "shop") == ""


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ack_deadline_seconds", 60),
        ("enable_exactly_once_delivery", True),
        ("message_retention_seconds", 3600),
        ("expiration_seconds", 86_400),
        ("dead_letter_topic", ""),
        ("max_delivery_attempts", 5),
        ("retry_backoff_seconds", (10.0, 600.0)),
        ("labels", {}),
    ],
)
def test_a_setting_is_changed_in_place(setting: str, value: object) -> None:
    """One update that names what differs, and nothing else."""
    plan = make_plan(DESIRED, found(DESIRED, **{setting: value}))

    (step,) = plan.steps
    assert isinstance(step, Update)
    (difference,) = step.differences
    assert difference.setting.partition(".")[0] == setting


@pytest.mark.parametrize(("setting", "value"), [("filter", ""), ("enable_message_ordering", True)])
def test_what_can_t_be_changed_is_replaced(setting: str, value: object) -> None:
    """Filter and ordering are immutable: the plan shows each step of the replacement."""
    plan = make_plan(DESIRED, found(DESIRED, **{setting: value}))

    (step,) = plan.steps
    assert isinstance(step, Replace)
    text = format_plan(plan, {}, "shop")
    assert "± subscription orders.crm" in text
    assert "1. create orders.crm.migration with the wanted settings" in text
    assert "8. delete the snapshot and orders.crm.migration" in text


def test_a_replacement_that_was_cut_short_goes_on() -> None:
    """The second subscription is its mark, whatever there is of the first; it is no orphan."""
    actual = found(DESIRED)
    second = replace(WANTED, name=replacement_of(NAME), labels={MIGRATION_LABEL: "1"})
    subscriptions = {**actual.subscriptions, second.name: second}
    del subscriptions[NAME]

    plan = make_plan(DESIRED, replace(actual, subscriptions=subscriptions))

    assert plan.steps == (Replace(WANTED, (), is_resumed=True),)
    assert plan.orphans == ()
    assert "was cut short" in format_plan(plan, {}, "shop")


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("topic", f"{PROJECT}/topics/other", "it belongs to topics/other".replace("topics/", "")),
        ("is_detached", True, "it is detached"),
        ("push_endpoint", "https://example.com/", "it pushes to https://example.com/"),
    ],
)
def test_what_nobody_else_should_touch_is_a_problem(setting: str, value: object, text: str) -> None:
    """No step, but what it is and what to do."""
    plan = make_plan(DESIRED, found(DESIRED, **{setting: value}))

    assert plan.steps == ()
    (problem,) = plan.problems
    assert problem.name == NAME
    shown = format_plan(plan, {}, "shop")
    assert text in shown
    assert "To do:" in shown


def test_orphans_are_what_was_made_for_a_handler_that_is_gone() -> None:
    """By its label; others' resources, and those of a deployment with a prefix, are not ours."""
    label = {"convotic": "handler"}
    topic, other = f"{PROJECT}/topics/old", f"{PROJECT}/subscriptions/others"
    old = SubscriptionSettings(name=f"{PROJECT}/subscriptions/old.crm", topic=topic, labels=label)
    actual = found(DESIRED)
    actual = replace(
        actual,
        topics={**actual.topics, topic: TopicSettings(name=topic, labels=label)},
        subscriptions={
            **actual.subscriptions,
            old.name: old,
            other: SubscriptionSettings(name=other, topic=topic),
        },
    )

    plan = make_plan(DESIRED, actual)

    assert plan.steps == ()
    assert plan.orphans == (Orphan("subscription", old.name), Orphan("topic", topic))
    shown = format_plan(plan, {old.name: BacklogSize(1200, oldest_age_seconds=7200)}, "shop")
    assert "subscription old.crm  1,200 messages, the oldest 2 hours old" in shown
    assert make_plan(replace(DESIRED, prefix="blue."), actual).orphans == ()


def test_dead_lettering_s_bindings_are_a_part_of_the_topology() -> None:
    """With the project's number: publisher on the dead letters, subscriber on the source."""
    desired = make_desired(make_options(), project_number="42")
    agent = service_agent("42")
    everything = found(desired)

    assert make_plan(desired, everything).steps == ()

    other = Binding("roles/pubsub.publisher", frozenset({"user:ann@example.com"}))
    dead = f"{PROJECT}/topics/orders.crm.dead-letter"
    lacking = replace(everything, bindings={**everything.bindings, dead: (other,)})
    (step,) = make_plan(desired, lacking).steps
    assert isinstance(step, AddBinding)
    assert (step.binding.resource, step.binding.member) == (dead, agent)


def test_a_conditional_binding_does_not_count() -> None:
    """Whether its condition holds is not known here."""
    desired = make_desired(make_options(), project_number="42")
    conditional = {
        each.resource: (Binding(each.role, frozenset({each.member}), is_conditional=True),)
        for each in desired.bindings
    }

    plan = make_plan(desired, replace(found(desired), bindings=conditional))

    assert len(plan.steps) == len(desired.bindings) == 4


def test_a_plan_as_json_has_every_difference() -> None:
    """What the person reads, for a program."""
    plan = make_plan(DESIRED, found(DESIRED, ack_deadline_seconds=60))

    assert describe_plan(plan, {}) == {
        "changes": [
            {
                "action": "update",
                "kind": "subscription",
                "name": NAME,
                "differences": [{"setting": "ack_deadline_seconds", "existing": 60, "wanted": 30}],
            }
        ],
        "problems": [],
        "orphans": [],
    }


def test_the_names_of_a_replacement_are_never_too_long() -> None:
    """Pub/Sub takes 255 characters."""
    longest = f"{PROJECT}/subscriptions/{'x' * 255}"

    assert len(replacement_of(longest).rpartition("/")[2]) == 255
    assert snapshot_of(longest).startswith(f"{PROJECT}/snapshots/xxx")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (90, "90 seconds"), (3600, "1 hour"), (604800, "7 days")],
)
def test_ages_are_read_by_people(seconds: float, text: str) -> None:
    """The largest unit of which there is more than one, or exactly one."""
    assert format_age(seconds) == text
