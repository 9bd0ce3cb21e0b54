"""The publisher without a server: what it hands to the I/O thread, and what it counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.errors import PublishError
from convotic_pubsub.options import TransportOptions
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.publish.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_pubsub.publish.confirmation import Confirmation


class Bench:
    """A publisher whose I/O thread is the test's loop, and which looks when the test says so."""

    def __init__(self) -> None:
        self.posted: list[Callable[[], object]] = []
        self.has_ended = False
        self.requests: list[list[bytes]] = []
        self.error: Exception | None = None
        broker: Any = SimpleNamespace(rpc=SimpleNamespace(publish=self._answer))
        self.publisher = Publisher(
            TransportOptions(project="p"),
            broker,
            clock=lambda: 1.0,
            post=self._post,
            declare=self._declare,
        )

    def _post(self, function: Callable[[], object]) -> bool:
        if not self.has_ended:
            self.posted.append(function)
        return not self.has_ended

    async def _answer(self, request: Any, **_limit: float) -> Any:
        self.requests.append([each.data for each in request.messages])
        if self.error is not None:
            raise self.error
        return SimpleNamespace(message_ids=[each.data.decode() for each in request.messages])

    async def _declare(self, queues: Iterable[str], _again: bool) -> None:
        assert not list(queues)

    def publish(self, data: bytes) -> Confirmation:
        return self.publisher.publish(OutgoingMessage("topic", data))

    def look(self) -> None:
        posted, self.posted = self.posted, []
        for function in posted:
            function()


async def test_the_io_thread_is_told_once_of_what_comes_until_it_looks() -> None:
    """All of it is sent, in one request; what comes after is told again."""
    bench = Bench()

    first, second = bench.publish(b"1"), bench.publish(b"2")
    assert len(bench.posted) == 1
    bench.look()
    assert [await first, await second] == ["1", "2"]
    third = bench.publish(b"3")
    assert len(bench.posted) == 1
    bench.look()

    assert await third == "3"
    assert bench.requests == [[b"1", b"2"], [b"3"]]


async def test_what_the_io_thread_has_not_seen_at_its_end_fails() -> None:
    """The next publish finds that nobody looks any more: neither of them hangs."""
    bench = Bench()
    unseen = bench.publish(b"1")
    await bench.publisher.finish()
    bench.has_ended = True

    late = bench.publish(b"2")

    for future in (unseen, late):
        with pytest.raises(PublishError, match="closed"):
            future.result(0)
    assert bench.publisher.failures == 2


@pytest.mark.parametrize("error", [None, RuntimeError("no")])
async def test_each_answer_is_counted_before_it_is_seen(error: Exception | None) -> None:
    """Whoever looks at the figures when a publish is confirmed, or has failed, finds it there."""
    bench = Bench()
    bench.error = error
    seen: list[tuple[int, int]] = []

    def look(_: Confirmation) -> None:
        seen.append((sum(bench.publisher.latencies.counts), bench.publisher.failures))

    futures = [bench.publish(b"1"), bench.publish(b"2")]
    for future in futures:
        future.add_done_callback(look)
    bench.look()
    await asyncio.wait([asyncio.ensure_future(wait_for(future)) for future in futures])

    assert seen == ([(2, 0)] * 2 if error is None else [(0, 2)] * 2)


async def wait_for(future: Confirmation) -> BaseException | str:
    try:
        return await future
    except PublishError as error:
        return error
