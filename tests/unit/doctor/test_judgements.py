"""What the doctor says of what it has read."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from convotic_celery.doctor.broker import check_retention, judge_plan
from convotic_celery.doctor.finding import Finding, worst
from convotic_celery.doctor.probe import left_probes
from convotic_celery.doctor.rights import describe_missing, has_agent
from convotic_celery.doctor.store import judge_clock, judge_store
from convotic_celery.doctor.versions import check_versions
from convotic_celery.topology.plan import make_plan
from convotic_celery.topology.rights import worker_rights
from convotic_celery.topology.values import Actual
from convotic_pubsub.client.admin import Binding
from convotic_pubsub.client.backlog_size import BacklogSize
from convotic_pubsub.topology import TopicSettings
from tests.unit.topology.test_plan import DESIRED, NAME, PROJECT, found

#: ``INFO`` of a store that is as it should be.
GOOD = {"redis_version": "7.4.0", "aof_enabled": 1, "maxmemory": 0, "role": "master"}


def levels(findings: Any) -> list[str]:
    """Return the levels of some findings."""
    return [each.level for each in findings]


def test_a_good_store_is_named() -> None:
    """One line, with its version."""
    assert list(judge_store(GOOD)) == [
        Finding("store", "ok", "Redis 7.4.0, keeps its data, evicts nothing")
    ]


@pytest.mark.parametrize(
    ("info", "level", "text", "remedy"),
    [
        ({"aof_enabled": 0}, "warning", "only in snapshots", "appendonly yes"),
        ({"aof_last_write_status": "err"}, "error", "append-only file failed", "disk"),
        ({"maxmemory_policy": "allkeys-lru"}, "warning", "allkeys-lru", "noeviction"),
        ({"maxmemory_policy": "volatile-lru", "maxmemory": 9}, "error", "drops", "noeviction"),
        ({"maxmemory": 100, "used_memory": 90}, "warning", "90% of its memory", "more memory"),
        ({"role": "slave"}, "error", "replica", "primary"),
        ({"redis_version": "6.0.16"}, "error", "too old", "6.2"),
    ],
)
def test_what_is_wrong_with_a_store(
    info: dict[str, Any], level: str, text: str, remedy: str
) -> None:
    """Persistence, eviction, memory, role, version: each with what to do."""
    (finding,) = judge_store({"rdb_last_save_time": 1, **GOOD, **info})

    assert finding.level == level
    assert text in finding.text
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("theirs", "level", "text"),
    [
        (100.4, "ok", "0.0 s"),
        (103.0, "warning", "2.0 s ahead of"),
        (90.0, "warning", "10.0 s behind"),
    ],
)
def test_clocks_are_compared(theirs: float, level: str, text: str) -> None:
    """An answer came between 100 and 101 s of this machine's."""
    (finding,) = judge_clock(theirs, 100.0, 101.0)

    assert finding.level == level
    assert text in finding.text


def test_what_is_missing_depends_on_who_makes_it() -> None:
    """With provision=create a worker does; otherwise messages are refused until somebody does."""
    plan = make_plan(DESIRED, Actual({}, {}))

    assert set(levels(judge_plan(plan, {}, "create"))) == {"note"}
    assert set(levels(judge_plan(plan, {}, "verify"))) == {"error"}
    assert levels(judge_plan(make_plan(DESIRED, found(DESIRED)), {}, "off")) == ["ok"]


def test_drift_is_a_warning_that_says_what_differs() -> None:
    """And what mends it."""
    plan = make_plan(DESIRED, found(DESIRED, ack_deadline_seconds=60))

    assert list(judge_plan(plan, {}, "off")) == [
        Finding(
            "topology",
            "warning",
            "subscription orders.crm: ack_deadline_seconds is 60, wanted 30",
            "convotic topology apply",
        )
    ]


def test_an_orphan_with_messages_is_a_warning() -> None:
    """Somebody may be waiting for them."""
    name = f"{PROJECT}/subscriptions/old.crm"
    actual = found(DESIRED)
    old = replace(actual.subscriptions[NAME], name=name)
    plan = make_plan(DESIRED, replace(actual, subscriptions={**actual.subscriptions, name: old}))

    finding = next(iter(judge_plan(plan, {name: BacklogSize(7)}, "off")))

    assert finding.level == "warning"
    assert "holds 7 messages" in finding.text
    assert finding.remedy.startswith("convotic topology apply --delete old.crm")


@pytest.mark.parametrize(
    ("age", "level"), [(86_400.0, "ok"), (4 * 86_400.0, "warning"), (6.5 * 86_400.0, "error")]
)
def test_messages_that_are_about_to_be_dropped(age: float, level: str) -> None:
    """From half of their retention on."""
    sizes = {NAME: BacklogSize(3, oldest_age_seconds=age)}

    (finding,) = check_retention(DESIRED, found(DESIRED), sizes)

    assert finding.level == level


def test_an_unknown_age_is_said() -> None:
    """The service tells the number alone, or nothing."""
    assert levels(check_retention(DESIRED, found(DESIRED), {NAME: BacklogSize(3)})) == ["note"]
    assert levels(check_retention(DESIRED, found(DESIRED), {})) == ["note"]


def test_a_missing_permission_comes_with_its_command() -> None:
    """Permission, resource, reason, and the binding that is missing."""
    rights = [each for each in worker_rights(DESIRED, "off") if each.resource == NAME]

    (finding,) = describe_missing(
        rights, {"pubsub.subscriptions.consume"}, "serviceAccount:worker@shop"
    )

    assert finding.level == "error"
    assert finding.text == (
        "pubsub.subscriptions.consume is missing on orders.crm, to take messages"
    )
    assert finding.remedy == (
        "gcloud pubsub subscriptions add-iam-policy-binding orders.crm --project=shop "
        "--member=serviceAccount:worker@shop --role=roles/pubsub.subscriber"
    )


@pytest.mark.parametrize(
    ("provision", "permissions"),
    [
        ("off", {"consume", "publish"}),
        ("create", {"consume", "publish", "get"}),
        ("verify", {"consume", "publish", "get"}),
    ],
)
def test_rights_depend_on_the_mode(provision: Any, permissions: set[str]) -> None:
    """Who looks at nothing needs no right to look."""
    rights = worker_rights(DESIRED, provision)

    assert {each.permission.rpartition(".")[2] for each in rights} == permissions


def test_pubsub_s_own_account_is_known_by_its_domain() -> None:
    """With the role or a larger one, without condition."""
    agent = frozenset({"serviceAccount:service-42@gcp-sa-pubsub.iam.gserviceaccount.com"})
    role = "roles/pubsub.publisher"

    assert has_agent([Binding(role, agent)], role)
    assert has_agent([Binding("roles/editor", agent)], role)
    assert not has_agent([Binding("roles/pubsub.viewer", agent)], role)
    assert not has_agent([Binding(role, agent, is_conditional=True)], role)
    assert not has_agent([Binding(role, frozenset({"user:ann@example.com"}))], role)


def test_versions_beyond_the_tested_ones_are_a_warning() -> None:
    """What is not installed is no matter."""

    def version_of(name: str) -> str:
        if name == "flower":
            raise PackageNotFoundError
        return {"celery": "5.8.1"}.get(name, "5.7.0")

    findings = list(check_versions(version_of, ["celery>=5.7,<5.8", "kombu>=5.7,<5.8"]))

    assert levels(findings) == ["warning", "ok"]
    assert findings[0].text == "celery 5.8.1 is installed; >=5.7,<5.8 is tested"


def test_what_killed_doctors_left_is_deleted_after_an_hour() -> None:
    """By the time in its name; a probe that runs is let be."""
    names = [f"{PROJECT}/topics/convotic.doctor.{n}-a1" for n in (1000, 9000)]
    topics = {name: TopicSettings(name=name) for name in [*names, f"{PROJECT}/topics/orders"]}

    assert left_probes(Actual(topics, {}), now=10_000.0) == names[:1]


def test_the_worst_finding_counts() -> None:
    """Nothing found is fine."""
    assert worst([]) == "ok"
    assert worst([Finding("a", "note", ""), Finding("b", "error", "")]) == "error"
