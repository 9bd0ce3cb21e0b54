"""``python -m benchmarks.one_thread``: the CPU that a message costs a worker, part by part.

A worker without its threads and without a broker: a response of 100 messages goes through a real
subscription, channel, strategy, pool and acknowledgements, all on one event loop, and the CPU time
of each part is divided by that of a fixed loop right before and after it. The quotient stays within
a twentieth while the machine's speed changes by half. The unit is a thousandth of that loop, half a
microsecond or so: compare two versions of the code in it, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import logging
import pstats
import shutil
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery.worker import state

from convotic_celery import (
    ConvoticContext,  # noqa: TC001  # read when a handler registers
    WorkerMessage,  # noqa: TC001  # the same
)
from convotic_celery.app import ConvoticApp
from convotic_celery.embedded import store
from convotic_celery.runtime.delivery.observing import observers
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.pool.gc_tuning import tune_gc
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.worker.strategy import handler_strategy
from convotic_celery.sdk.handler import define_handler
from convotic_celery.sdk.options import WorkerOptions
from convotic_celery.settings import Settings
from convotic_order_processor.handler import process_order
from convotic_order_processor.models import Order  # noqa: TC001  # the same
from convotic_order_processor.orders import load_orders
from convotic_pubsub.client.rpc import pb
from convotic_pubsub.consume.acks import AckBatcher
from convotic_pubsub.consume.delivery import Outstanding, PullStream
from convotic_pubsub.consume.lease_timer import LeaseTimer
from convotic_pubsub.consume.ports import Ports
from convotic_pubsub.consume.subscription import Subscription
from convotic_pubsub.kombu.channel import Channel
from convotic_pubsub.outgoing import OutgoingMessage  # noqa: TC001  # signatures
from convotic_pubsub.queue import QueueSpec

#: Messages of a response.
_SIZE = 100
_PARTS = ("receive", "take", "run", "settle", "acknowledge")


async def do_nothing(message: WorkerMessage, ctx: ConvoticContext) -> None:
    """Succeed at once."""


async def wait_once(message: WorkerMessage, ctx: ConvoticContext) -> None:  # noqa: ARG001 - a no-op
    """Succeed in the next turn of the loop."""
    await asyncio.sleep(0)


async def validate(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """Succeed with the order validated."""


async def find(message: WorkerMessage[Order], ctx: ConvoticContext) -> None:
    """Ask the store once."""
    await ctx.contacts.find_by_external_id(message.data.customer_id)


_HANDLERS: dict[str, Callable[..., Awaitable[None]]] = {
    "noop": do_nothing,
    "wait": wait_once,
    "typed": validate,
    "find": find,
    "order": process_order,
}


class OneThread:
    """The parts of a worker, and a clock for each. Used on one loop."""

    def __init__(self, app: ConvoticApp, profiled: str = "") -> None:
        (definition,) = app.definitions
        loop = asyncio.get_running_loop()
        pool: Any = TaskPool(_SIZE, app=app)
        self.pool = pool
        thread: Any = SimpleNamespace(loop=loop, thread_id=threading.get_ident(), is_running=True)
        pool._loop_thread, pool._does_debug = thread, False
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._outstanding = Outstanding()
        ports = Ports(
            clock=time.monotonic,
            post=self._post,
            post_lazily=self._post,
            acks=AckBatcher(_confirming, "bench"),
            timer=LeaseTimer(time.monotonic, lambda *_: None),
            outstanding=self._outstanding,
            publish=_publish_nothing,
            count_dead_letter=bool,
        )
        spec = QueueSpec(
            queue=definition.queue,
            topic=definition.topic,
            subscription=definition.subscription,
            policy=HandlerPolicy(definition, None),
            concurrency=_SIZE,
            buffer_messages=None,
            dead_letter_topic="bench.dead",
            max_delivery_attempts=10,
        )
        channel = self._channel(app, definition.queue)
        self._subscription = Subscription(
            spec, ports, lambda delivery: channel._queue(definition.queue, "t", delivery)
        )
        self._stream = PullStream(limit=2 * _SIZE)
        self._serial = 0
        self.profile = cProfile.Profile() if profiled else None
        self._profiled = profiled
        self.units: dict[str, list[float]] = {part: [] for part in _PARTS}

    def _post(self, function: Callable[..., None], *arguments: Any) -> bool:
        self._posted.append((function, arguments))
        return True

    def _channel(self, app: ConvoticApp, queue: str) -> Channel:
        session = SimpleNamespace(
            transient={},
            options=SimpleNamespace(queues={}),
            post=self._post,
            clock=time.monotonic,
        )
        connection = SimpleNamespace(
            _used_channel_ids=[],
            channel_max=9,
            client=SimpleNamespace(transport_options={}),
            session=session,
            inbox=SimpleNamespace(items=0),
            sink=SimpleNamespace(items=0),
            is_stopping=False,
            connection_errors=(KeyError,),
            channel_errors=(),
            state=SimpleNamespace(),
        )
        channel = Channel(connection)
        consumer = SimpleNamespace(
            hostname="bench@here",
            connection_errors=(),
            event_dispatcher=None,
            pool=self.pool,
            disable_rate_limits=False,
            task_buckets={queue: None},
            controller=SimpleNamespace(state=state),
            on_task_request=lambda request: request.execute_using_pool(self.pool),
            app=app,
        )
        take = handler_strategy(app.tasks[queue], app, consumer)
        channel._callbacks["t"] = (False, lambda message: take(message, None, None, None, ()))
        channel._tag_to_queue["t"] = queue
        channel.redirect(queue, self._hand_over)
        return channel

    def _hand_over(self, arrival: Any) -> bool:
        self.pool.call_soon(arrival.deliver)
        return True

    async def burst(self, bodies: Iterator[bytes]) -> None:
        """Take a response of messages all the way."""
        response = self._response(bodies)
        with self._timed("receive"):
            for message in response.received_messages:
                self._subscription.receive(message, self._stream)
        with self._timed("take"):
            while self.pool._coming:
                self.pool._coming.popleft()()
        with self._timed("run"):
            while self.pool._jobs or len(self._posted) < _SIZE:  # noqa: ASYNC110 - nothing is told
                await asyncio.sleep(0.0005)
        with self._timed("settle"):
            while self._posted:
                function, arguments = self._posted.popleft()
                function(*arguments)
        with self._timed("acknowledge"):
            while len(self._outstanding):  # noqa: ASYNC110 - nothing is told
                await asyncio.sleep(0)

    def _response(self, bodies: Iterator[bytes]) -> Any:
        received = []
        for _ in range(_SIZE):
            self._serial += 1
            message = pb.ReceivedMessage(ack_id=f"ack-{self._serial}", delivery_attempt=1)
            message.message.data = next(bodies)
            message.message.message_id = str(self._serial)
            message.message.publish_time.seconds = 1_700_000_000
            received.append(message)
        return pb.StreamingPullResponse(received_messages=received)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        profile = self.profile if part == self._profiled else None
        before = _fixed_loop()
        if profile:
            profile.enable()
        began = time.thread_time()  # not the time that the loop waits for the store
        yield
        took = time.thread_time() - began
        if profile:
            profile.disable()
        self.units[part].append(took / _SIZE / (before + _fixed_loop()) * 500)


def _confirming() -> Any:
    async def acknowledge(_path: str, _ids: list[str]) -> None:
        """Confirm at once."""

    return SimpleNamespace(acknowledge=acknowledge)


def _publish_nothing(message: OutgoingMessage) -> Any:
    raise AssertionError(message)


class _Box:
    def __init__(self, value: int) -> None:
        self.value = value
        self.kept = {"value": value}

    def read(self, name: str) -> int:
        return self.kept[name]


def _fixed_loop() -> float:
    """Seconds of CPU that some ordinary Python takes now: objects, calls, containers, text."""
    began = time.thread_time()
    kept: list[object] = []
    for number in range(600):
        box = _Box(number)
        kept.append(box.read("value"))
        kept.append((number, str(number)))
    return time.thread_time() - began


def _bodies() -> Iterator[bytes]:
    orders = [json.dumps(order).encode() for order in load_orders()]
    while True:
        yield from orders


async def measure(app: ConvoticApp, rounds: int, profiled: str) -> OneThread:
    """Return the parts after so many bursts."""
    worker, bodies = OneThread(app, profiled), _bodies()
    tune_gc()
    for _ in range(rounds):
        await worker.burst(bodies)
    return worker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_thread")
    parser.add_argument("handler", choices=_HANDLERS, nargs="?", default="noop")
    parser.add_argument("--rounds", type=int, default=69, help="responses of 100 messages")
    parser.add_argument("--profile", choices=_PARTS, default="", help="show where a part's time is")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="convotic-bench-"))
    try:
        settings = Settings(
            broker_url="pubsub://bench",
            redis_url=f"unix://{store.ensure_running(folder)}",
            modules=[],
        )
        definition = define_handler(
            _HANDLERS[options.handler],
            module="bench",
            module_version="1",
            topic="bench.orders",
            name=None,
            options=WorkerOptions(concurrency=_SIZE),
        )
        app = ConvoticApp(settings, [definition])
        app.set_default()
        app.finalize()
        observers.add(app.last_outcomes)
        logging.getLogger("convotic").setLevel(logging.WARNING)
        worker = asyncio.run(measure(app, options.rounds, options.profile))
    finally:
        store.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)
    medians = {part: statistics.median(units) for part, units in worker.units.items()}
    figures = "  ".join(f"{part} {units:.1f}" for part, units in medians.items())
    print(f"{options.handler}: {figures}  whole {sum(medians.values()):.1f}")
    if worker.profile:
        pstats.Stats(worker.profile).sort_stats("tottime").print_stats(60)


if __name__ == "__main__":
    main()
