"""Crash by crash, with real workers and kill -9: each case is a row of docs/idempotency.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from convotic_celery.embedded import store_url
from convotic_celery.settings import Settings
from convotic_emulator.engine.state import SubscriptionState
from convotic_emulator.testing import EmulatorThread
from tests.acceptance.stage import Stage, Worker, make_stage
from tests.acceptance.test_health import Port
from tests.support.waiting import wait_until

#: Three handlers that do the same; a message says where its first run kills the process.
MODULE = '''
import asyncio
import json
import os
import signal
from pathlib import Path

from celery.signals import task_success

from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage, WorkerMiddleware

RECORD = Path(os.environ["CONVOTIC_TEST_RECORD"])
LAST = {}


def record(message, what):
    line = {"what": what, "id": message.id, "worker": os.getpid()}
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\\n")


def die_at(point, data):
    if data.get("die") == point and not RECORD.with_name("died").exists():
        RECORD.with_name("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Killer(WorkerMiddleware):
    async def before(self, message, ctx):
        die_at("before", message.data)

    async def after(self, message, ctx):
        die_at("returned", message.data)


module = ConvoticModule(name="crashes", version="1", middleware=[Killer()])


@module.worker("crash.plain", ack_deadline=10)
@module.worker("crash.keyed", ack_deadline=10, deduplicate="data.id")
@module.worker("crash.by-message", ack_deadline=10, deduplicate="message.id")
async def work(message: WorkerMessage, ctx: ConvoticContext) -> None:
    LAST.update(message.data)
    record(message, "start")
    die_at("middle", message.data)
    while "until" in message.data and not RECORD.with_name(message.data["until"]).exists():
        await asyncio.sleep(0.05)
    record(message, "end")


@task_success.connect(weak=False)
def on_success(**_):
    """The run's success is recorded by now; its acknowledgement is not sent yet."""
    die_at("recorded", LAST)
'''


class World:
    """The stage, its emulator, and how often a message is run in the end."""

    def __init__(self, stage: Stage, emulator: EmulatorThread) -> None:
        self.stage = stage
        self.emulator = emulator
        #: Of the worker that is asked for its metrics.
        self._port = Port()

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Run a worker that acknowledges nothing but the test's messages."""
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        with self.stage.worker(*quiet) as worker:
            yield worker

    @contextmanager
    def worker_with_metrics(self) -> Iterator[None]:
        """Run such a worker, which is the only one."""
        self.stage.environment["CONVOTIC_HEALTH_PORT"] = str(self._port.number)
        with self.worker():
            yield

    def publish(self, topic: str, **data: Any) -> str:
        return self.stage.publish_json({"id": 7} | data, topic=topic)

    def starts(self) -> list[dict[str, Any]]:
        return self.stage.read_runs("start")

    def lose_acknowledgement(self, topic: str) -> None:
        """Have a message succeed whose acknowledgement is confirmed and forgotten."""
        faults = self.emulator.faults
        # Not one of the control topic, whose messages come at any time.
        faults.lose_acks(1, f"projects/{self.stage.project}/subscriptions/{topic}.crashes")
        self.publish(topic)
        # By the worker, too: a copy that comes before that is acknowledged in the message's place.
        wait_until(lambda: self._has_confirmed(topic), what="it is confirmed")
        assert not faults._lost_acks

    def _has_confirmed(self, topic: str) -> bool:
        name = "convotic_ack_confirmation_seconds_count"
        pattern = rf'^{name}\{{.*handler="{re.escape(topic)}\.crashes".*\}} [1-9]'
        return bool(re.search(pattern, self._port.get("/metrics"), re.MULTILINE))

    def wait_until_settled(self, topic: str) -> None:
        """Wait until Pub/Sub has nothing more of the handler's."""
        path = f"projects/{self.stage.project}/subscriptions/{topic}.crashes"
        wait_until(lambda: not self.emulator.count(path), what="nothing is left")

    def is_delivered_again(self, topic: str) -> bool:
        """Say whether somebody has a message of the handler's for the second time."""
        return any(message.attempts for message in list(self._state(topic).outstanding.values()))

    def count_streams(self, topic: str) -> int:
        """Return how many streams wait for messages of the handler's."""
        waiting = self.emulator.server.engine.dispatcher._waiting
        return len(waiting.get(self._state(topic), ()))

    def _state(self, topic: str) -> SubscriptionState:
        path = f"projects/{self.stage.project}/subscriptions/{topic}.crashes"
        return self.emulator.server.engine.registry.subscriptions[path].state

    def kill(self, topic: str, point: str) -> int:
        """Kill the worker at that point of a run; return how often it has run in the end."""
        with self.worker() as worker:
            self.publish(topic, die=point)
            wait_until(lambda: not worker.child.is_running, what="it has died")
        self.emulator.advance(60)  # the dead worker's lease is over
        with self.worker():
            self.wait_until_settled(topic)
        return len(self.starts())


def before_it_began(world: World, topic: str) -> int:
    return world.kill(topic, "before")


def in_the_middle(world: World, topic: str) -> int:
    runs = world.kill(topic, "middle")
    assert len(world.stage.read_runs("end")) == 1
    return runs


def before_it_was_recorded(world: World, topic: str) -> int:
    return world.kill(topic, "returned")


def after_it_was_recorded(world: World, topic: str) -> int:
    return world.kill(topic, "recorded")


def lost_acknowledgement(world: World, topic: str) -> int:
    with world.worker_with_metrics():
        world.lose_acknowledgement(topic)
        world.emulator.advance(60)
        world.wait_until_settled(topic)
    return len(world.starts())


def repeated_publish(world: World, topic: str) -> int:
    with world.worker():
        world.publish(topic)
        world.publish(topic)
        world.wait_until_settled(topic)
        keyed_runs = len(world.starts())
        if topic == "crash.keyed":  # the row has both keys
            world.publish("crash.by-message")
            world.publish("crash.by-message")
            world.wait_until_settled("crash.by-message")
            assert len(world.starts()) == keyed_runs + 2
    return keyed_runs


def two_at_once(world: World, topic: str) -> int:
    with world.worker(), world.worker():
        # They are served in turn. Without the other's stream, the first worker would get both.
        wait_until(lambda: world.count_streams(topic) == 2, what="both workers' streams")
        world.publish(topic, until="both have it")
        wait_until(world.starts)
        world.emulator.advance(60)  # as if its lease were over: the other worker gets it, too
        wait_until(lambda: world.is_delivered_again(topic))
        if topic == "crash.plain":
            wait_until(lambda: len(world.starts()) == 2)
        (world.stage.folder / "both have it").touch()
        world.wait_until_settled(topic)
        wait_until(lambda: len(world.stage.read_runs("end")) == len(world.starts()))
    assert len({run["worker"] for run in world.starts()}) == len(world.starts())
    return len(world.starts())


def lost_data(world: World, topic: str) -> int:
    with world.worker_with_metrics():
        world.lose_acknowledgement(topic)
        url = store_url(Settings(data_dir=world.stage.data_dir))
        with redis.Redis.from_url(url) as client:
            client.flushall()
        world.emulator.advance(60)
        world.wait_until_settled(topic)
    return len(world.starts())


Play: TypeAlias = Callable[[World, str], int]


@pytest.mark.parametrize("topic", ["crash.plain", "crash.keyed"])
@pytest.mark.parametrize(
    "play",
    [
        pytest.param(
            before_it_began,
            marks=pytest.mark.crash(
                1,
                "the worker, before the handler began",
                without_key="runs once",
                with_key="runs once",
            ),
        ),
        pytest.param(
            in_the_middle,
            marks=pytest.mark.crash(
                2,
                "the worker, in the middle of the handler",
                without_key="runs again",
                with_key="runs again, once its lease has ended; never beside the first",
            ),
        ),
        pytest.param(
            before_it_was_recorded,
            marks=pytest.mark.crash(
                3,
                "the worker, after the handler returned and before that was recorded",
                without_key="runs again",
                with_key="runs again",
            ),
        ),
        pytest.param(
            after_it_was_recorded,
            marks=pytest.mark.crash(
                4,
                "the worker, after it was recorded and before the acknowledgement",
                without_key="runs again",
                with_key="skipped",
            ),
        ),
        pytest.param(
            lost_acknowledgement,
            marks=pytest.mark.crash(
                5,
                "the acknowledgement is lost",
                without_key="runs again",
                with_key="skipped",
            ),
        ),
        pytest.param(
            repeated_publish,
            marks=pytest.mark.crash(
                6,
                "the publisher repeats its publish",
                without_key="runs again",
                with_key="skipped with a business key, runs with `message.id`",
            ),
        ),
        pytest.param(
            two_at_once,
            marks=pytest.mark.crash(
                7,
                "Pub/Sub delivers to two workers at once",
                without_key="runs in both",
                with_key="runs in one, the other is skipped when that has succeeded",
            ),
        ),
        pytest.param(
            lost_data,
            marks=pytest.mark.crash(
                8,
                "the acknowledgement is lost, and the store its data",
                without_key="runs again",
                with_key="runs again, also what had succeeded",
            ),
        ),
    ],
)
def test_the_row_says_what_happens(  # noqa: PLR0917 - fixtures
    play: Play,
    topic: str,
    tmp_path: Path,
    data_dir: Path,
    pubsub_emulator: EmulatorThread,
    request: pytest.FixtureRequest,
) -> None:
    """As often as the row has it: once where it is skipped, twice where it runs again."""
    stage = make_stage(tmp_path, data_dir, pubsub_emulator.address)
    (stage.folder / "modules" / "shop.py").write_text(MODULE)
    mark = request.node.get_closest_marker("crash")
    assert mark is not None
    says = mark.kwargs["with_key" if topic == "crash.keyed" else "without_key"]

    runs = play(World(stage, pubsub_emulator), topic)

    runs_once = says.startswith(("runs once", "skipped", "runs in one"))
    assert runs == (1 if runs_once else 2), says
