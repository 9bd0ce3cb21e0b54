"""The buffer covers the distance: a server far away and its clock, played by the test."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from convotic_pubsub.consume.delivery import Delivery, PullStream
from convotic_pubsub.queue import Acknowledge
from tests.unit.pubsub.test_subscription import Bench


class FarBench(Bench):
    """A subscription with a backlog on a server that is ``round_trip`` seconds away."""

    def __init__(
        self, round_trip: float, concurrency: int, run_seconds: float, **spec: Any
    ) -> None:
        spec = {"buffer_messages": None, "ack_deadline_seconds": 600.0, **spec}
        super().__init__(concurrency=concurrency, **spec)
        self._half = round_trip / 2
        self.run_seconds = run_seconds
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._streams_by_ack_id: dict[str, PullStream] = {}
        self._closed: set[PullStream] = set()
        self.streams = 0
        self.done = 0
        self.most_ready = 0
        self.acker.ack = self._ack  # type: ignore[method-assign]
        self.subscription._dispatch = self._start
        self.subscription.on_change = self._pull
        self._open()

    def _after(self, seconds: float, event: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def run_for(self, seconds: float) -> int:
        """Let time pass; return how many messages were done in it."""
        before, end = self.done, self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end
        return self.done - before

    def _open(self) -> None:
        self.streams += 1
        stream = self.source = PullStream(limit=self.subscription.limit)
        for _ in range(stream.limit):
            self._after(self._half, lambda: self._send(stream))

    def _pull(self) -> None:
        if self.subscription.is_outgrown(self.source):
            old = self.source
            self._after(self._half, lambda: self._closed.add(old))
            self._open()

    def _send(self, stream: PullStream) -> None:
        """The server sends a message: it has room for one on the stream."""
        if stream not in self._closed:
            name = str(next(self._numbers))
            self._streams_by_ack_id[name] = stream
            self._after(self._half, lambda: self._arrive(name, stream))

    def _arrive(self, name: str, stream: PullStream) -> None:
        newest, self.source = self.source, stream
        self.deliver(name, ack_id=name)
        self.source = newest
        self.most_ready = max(self.most_ready, len(self.subscription._buffer))

    def _start(self, delivery: Delivery) -> None:
        self._after(self.run_seconds, lambda: self._finish(delivery))

    def _finish(self, delivery: Delivery) -> None:
        self.done += 1
        self.settle(delivery, Acknowledge())

    def _ack(self, ack_id: str, done: Any, *, is_urgent: bool) -> None:  # noqa: ARG002
        stream = self._streams_by_ack_id.pop(ack_id)
        self._after(self._half, lambda: self._send(stream))
        self._after(2 * self._half, lambda: done(True))


@pytest.mark.parametrize(
    ("concurrency", "run_ms"), [(1, 0.7), (1, 5.0), (10, 2.0), (10, 5.0), (100, 20.0)]
)
@pytest.mark.parametrize("round_trip_ms", [20, 50])
def test_a_far_server_costs_no_throughput(
    round_trip_ms: float, concurrency: int, run_ms: float
) -> None:
    """Soon no slot is idle any more, with a handful of streams."""
    bench = FarBench(round_trip_ms / 1000, concurrency, run_ms / 1000)

    bench.run_for(1.5)
    done = bench.run_for(0.5)

    assert done >= 0.95 * 0.5 * concurrency / (run_ms / 1000)
    assert bench.streams <= 9


@pytest.mark.parametrize(("run_seconds", "ready"), [(10.0, 1), (1.0, 1), (0.1, 10)])
def test_what_waits_is_a_second_of_work_or_one_message(run_seconds: float, ready: int) -> None:
    """A worker hoards nothing: others have the rest of the backlog."""
    bench = FarBench(0.5, 1, run_seconds)

    bench.run_for(100.0)

    assert bench.most_ready <= ready


def test_a_handler_that_becomes_slow_keeps_less_ready() -> None:
    """A thousand times slower: what is ready goes down to one message, the limit with it."""
    bench = FarBench(0.05, 1, 0.001)
    bench.run_for(2.0)
    assert bench.subscription.limit > 30

    bench.run_seconds = 1.0
    bench.run_for(400.0)

    assert bench.subscription.limit == 2
    assert len(bench.subscription._buffer) <= 2


def test_a_fixed_buffer_stays() -> None:
    """A ``buffer`` that is set is kept."""
    bench = FarBench(0.05, 1, 0.001, buffer_messages=3)

    bench.run_for(2.0)

    assert bench.subscription.limit == 4
    assert bench.streams == 1
