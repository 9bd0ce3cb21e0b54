"""How many workers are needed: from what is known, on the emulator and on the service."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client import parser

from convotic_celery.errors import StoreUnavailable
from convotic_celery.telemetry.scaling.answers import SCALING_METRICS, ScalingSource
from convotic_celery.telemetry.scaling.demand import HandlerReport, count_waiting, needed_workers
from convotic_celery.telemetry.scaling.reports import Known
from convotic_celery.telemetry.scaling.scaler import Demand, HandlerDemand, Queue, Scaler
from convotic_pubsub.client.backlog_size import BacklogSize

DOCUMENT = Path(__file__).parents[3] / "docs" / "scaling.md"
#: Not typed.
parse: Any = parser.text_string_to_metric_families

#: A worker with ten slots, five of them busy, whose runs take half a second.
HALF_BUSY = HandlerReport(10, 5.0, 10.0, 0.5, 0, 0, 0.0)
#: All are busy, and what waits here was published a minute ago.
FULL = HandlerReport(10, 10.0, 20.0, 0.5, 3, 0, 60.0)


@pytest.mark.parametrize(
    ("reports", "backlog", "is_seen", "expected"),
    [
        ([], None, False, 0),
        ([HALF_BUSY], None, False, 0),
        # The emulator says exactly what nobody has.
        ([], BacklogSize(120, leased=20, oldest_age_seconds=3.0), False, 100),
        ([FULL, FULL], BacklogSize(526, leased=26), False, 506),
        # The service says it minutes late: while a worker has room, nothing waits.
        ([HALF_BUSY, FULL], BacklogSize(9000, figures_age_seconds=180.0), False, 3),
        # All are busy, and what comes is a minute old: a minute's work waits at least.
        ([FULL, FULL], None, False, 2400),
        # Late figures count without what was done since.
        ([FULL, FULL], BacklogSize(12_000, figures_age_seconds=100.0), False, 7980),
        ([FULL, FULL], BacklogSize(100, figures_age_seconds=100.0), False, 2400),
        # Nobody is there: late figures, or what somebody has seen.
        ([], BacklogSize(700, figures_age_seconds=150.0), False, 700),
        ([], BacklogSize(0, figures_age_seconds=150.0), True, 1),
        ([], None, True, 1),
    ],
)
def test_what_waits_is_known_as_well_as_it_can_be(
    reports: list[HandlerReport], backlog: BacklogSize | None, is_seen: bool, expected: float
) -> None:
    """Exactly on the emulator; on the service by what workers see, and by late figures."""
    assert count_waiting(reports, backlog, is_seen=is_seen) == expected


@pytest.mark.parametrize(
    ("reports", "waiting", "run_seconds", "expected"),
    [
        ([], 0, None, 0),
        ([], 1, None, 1),
        ([], 600, 1.0, 2),  # 600 s of work in 30 s: 20 slots
        ([], 600, None, 2),  # a second a run, until one has ended
        ([], 3, 3600.0, 1),  # no more slots than messages
        ([], 25, 3600.0, 3),
        ([HALF_BUSY] * 2, 0, 0.5, 2),  # ten busy slots, of which 80 % should be
        ([HALF_BUSY] * 4, 0, 0.5, 3),  # and with four workers, three are enough
        ([HALF_BUSY._replace(busy=0.1)], 0, 0.5, 1),
        ([HALF_BUSY._replace(busy=0.0)], 0, 0.5, 0),
        ([FULL] * 2, 2400, 0.5, 7),  # 25 slots for what arrives, 40 for the backlog
    ],
)
def test_workers_are_needed_for_what_arrives_and_for_what_waits(
    reports: list[HandlerReport], waiting: float, run_seconds: float | None, expected: int
) -> None:
    """Ten slots a worker, four fifths of them busy, and a backlog worked off in 30 s."""
    assert (
        needed_workers(reports, waiting, slots=10, run_seconds=run_seconds, drain_seconds=30)
        == expected
    )


@dataclass
class World:
    """A broker and a store that say what a test has them say, and a clock that it moves."""

    known: Known = field(default_factory=Known)
    paused: set[str] = field(default_factory=set)
    due: datetime | None = None
    sizes: dict[str, BacklogSize] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    #: What was asked of the broker.
    asked: list[str] = field(default_factory=list)
    now: float = 1000.0
    is_down: bool = False

    def read_reports(self) -> Known:
        if self.is_down:
            raise StoreUnavailable("The store does not answer")
        return self.known

    def read_paused(self) -> set[str]:
        return self.paused

    def next_due(self) -> datetime | None:
        return self.due

    def backlog_sizes(self, subscriptions: Iterable[str]) -> Mapping[str, BacklogSize]:
        self.asked.append("sizes")
        return {name: self.sizes[name] for name in subscriptions if name in self.sizes}

    def find_waiting(self, subscriptions: Iterable[str]) -> set[str]:
        names = set(subscriptions)
        self.asked.append(f"look into {', '.join(sorted(names))}")
        return self.waiting & names

    def scaler(self, *queues: str) -> Scaler:
        found = [Queue(name, f"pre-{name}", 10) for name in queues or ("a", "b")]
        return Scaler(found, lambda: self, self, clock=lambda: self.now)


def test_all_handlers_together_need_what_one_needs_most() -> None:
    """Each worker has slots for all of them; what is paused needs none."""
    world = World(sizes={n: BacklogSize(600, leased=0) for n in ("pre-a", "pre-b", "pre-c")})
    world.sizes["pre-b"] = BacklogSize(1200, leased=0)
    world.sizes["pre-c"] = BacklogSize(10**6, leased=0)
    world.paused = {"c"}

    demand = world.scaler("a", "b", "c").look()

    assert {name: each.needed for name, each in demand.handlers.items()} == {"a": 2, "b": 4}
    assert demand.needed == 4


def test_without_workers_the_service_is_looked_into_and_seldom_where_something_was() -> None:
    """Every five seconds while nothing is there; to find something is to have it delivered."""
    world = World(known=Known(run_seconds={"a": 0.1}))
    scaler = world.scaler()

    assert scaler.look().needed == 0
    world.now += 3
    scaler.look()
    assert world.asked == ["sizes", "look into pre-a, pre-b"]

    world.waiting = {"pre-a"}
    world.now += 3
    assert scaler.look().handlers["a"].needed == 1
    world.now += 10
    assert scaler.look().needed == 1
    assert world.asked[-1] == "look into pre-b"
    world.waiting = set()
    world.now += 60
    assert scaler.look().needed == 0


def test_what_workers_pull_is_not_looked_into() -> None:
    """They see themselves what is there."""
    world = World(known=Known(({"a": HALF_BUSY}, {"a": HALF_BUSY, "b": FULL})))

    demand = world.scaler().look()

    assert world.asked == ["sizes"]
    assert (demand.workers, demand.handlers["a"].workers, demand.handlers["b"].workers) == (2, 2, 1)


def test_late_figures_are_asked_for_once_a_minute_and_exact_ones_always() -> None:
    """Monitoring has a point a minute."""
    world = World(sizes={"pre-a": BacklogSize(5, figures_age_seconds=90.0)})
    scaler = world.scaler("a")
    scaler.look()
    world.now += 30
    scaler.look()
    assert world.asked.count("sizes") == 1

    world.now += 40
    world.sizes = {"pre-a": BacklogSize(5, leased=0)}
    scaler.look()
    scaler.look()
    assert world.asked.count("sizes") == 3


def test_a_delayed_message_needs_a_worker_that_publishes_it() -> None:
    """Shortly before it is due."""
    world = World(sizes={"pre-a": BacklogSize(0, leased=0), "pre-b": BacklogSize(0, leased=0)})
    world.due = datetime.now(UTC) + timedelta(minutes=5)
    assert world.scaler().look().needed == 0

    world.due = datetime.now(UTC) + timedelta(seconds=5)
    assert world.scaler().look().needed == 1


def test_what_prevents_a_look_is_logged_once_from_the_first_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And when it is over."""
    caplog.set_level(logging.INFO)
    world = World(is_down=True)
    scaler = world.scaler()
    scaler.look_again()
    scaler.look_again()
    assert (scaler.demand, scaler.problem) == (None, "The store does not answer")

    world.is_down = False
    scaler.look_again()

    assert scaler.demand is not None
    assert [each.getMessage() for each in caplog.records] == [
        "How many workers are needed is not known: The store does not answer",
        "How many workers are needed is known again",
    ]


# -- answers ---------------------------------------------------------------------------------------


class Fixed(Scaler):
    """A scaler that has found this."""

    def __init__(self, demand: Demand | None) -> None:
        self._found = demand
        self._problem = "the store does not answer"

    @property
    def demand(self) -> Demand | None:
        return self._found


DEMAND = Demand(
    4,
    2,
    {
        "orders.shop": HandlerDemand(4, 1200.0, 0.0, 0.0, None, 0),
        "mails.shop": HandlerDemand(1, 0.0, 3.0, 2.0, 1.5, 2),
    },
)


def ask(query: str) -> tuple[int, Any]:
    """Ask as KEDA's Prometheus scaler does."""
    asked = f"query={quote(query)}&time=2026-11-27T20:00:00Z"
    answer = ScalingSource(Fixed(DEMAND)).answer("/api/v1/query", "*/*", asked)
    assert answer is not None
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("convotic_needed_workers", ["4"]),
        ('convotic_handler_needed_workers{handler="mails.shop"}', ["1"]),
        ('max(convotic_handler_needed_workers{handler=~"orders.*|mails.*"})', ["4"]),
        ('max(convotic_handler_needed_workers{handler=~"no"})', []),
        ("convotic_handler_run_seconds", ["1.5"]),
    ],
)
def test_keda_is_answered_as_prometheus_would(query: str, expected: list[str]) -> None:
    """A vector of text values; the query means the same to a Prometheus that scrapes /metrics."""
    status, found = ask(query)

    assert (status, found["status"], found["data"]["resultType"]) == (200, "success", "vector")
    assert [each["value"][1] for each in found["data"]["result"]] == expected


@pytest.mark.parametrize(
    "query", ["", "sum(convotic_needed_workers)", "celery_worker_up", 'x{handler=~"("}', "1"]
)
def test_another_query_is_refused_with_what_there_is(query: str) -> None:
    """Nothing is guessed: an autoscaler keeps what it has."""
    status, found = ask(query)

    assert status == 400
    assert "convotic_needed_workers" in found["error"]


def test_what_is_unknown_is_not_zero() -> None:
    """While the store is unavailable an autoscaler gets an error, and keeps what it has."""
    world = World(is_down=True)
    with pytest.raises(StoreUnavailable):
        world.scaler().look()
    for path in ("/readyz", "/metrics", "/api/v1/query", "/"):
        answer = ScalingSource(Fixed(None)).answer(path, "*/*", "query=convotic_needed_workers")
        assert answer is not None
        assert answer.status == 503
        assert b"the store does not answer" in answer.body
    live = ScalingSource(Fixed(None)).answer("/livez", "*/*")
    assert live is not None
    assert live.status == 200


def test_the_document_has_each_metric_of_scaling() -> None:
    """docs/scaling.md is held to the table in the code, and the scrape to both."""
    rows = re.findall(r"^\| `(convotic_[a-z_]+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    answer = ScalingSource(Fixed(DEMAND)).answer("/metrics", "*/*")

    assert dict(rows) == SCALING_METRICS
    assert answer is not None
    assert {each.name for each in parse(answer.body.decode())} == SCALING_METRICS.keys()
