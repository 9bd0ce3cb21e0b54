"""Acknowledgements and deadline changes of one subscription, sent in batches (I/O thread)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import Rpc, is_transient, refused_ack_ids, translate
from convotic_pubsub.limits import MAX_ACK_ID_BYTES, MAX_ACK_IDS

__all__ = ["AckBatcher"]

logger = logging.getLogger(__name__)

#: What each id costs in a request, beside itself.
_FRAMING_BYTES = 4
#: A request is retried this long on transient errors: as long as the longest lease. What is not
#: confirmed by then has long been delivered again.
_RETRY_SECONDS = 600.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 5.0
#: Acknowledge requests under way at a time, and how long after one the next leaves; as Google's
#: clients. A request costs as much as the rest of six messages.
_MAX_REQUESTS, _GATHER_SECONDS = 16, 0.01

#: Called with whether the server has confirmed.
Done: TypeAlias = Callable[[bool], None]
#: What is to be called, by ack id.
Batch: TypeAlias = dict[str, Done]


class AckBatcher:
    """Sends acknowledgements and deadline changes of one subscription.

    An idle queue's ack leaves at once. The next ones gather, until 10 ms after it, or until no
    request is under way if the queue waits for what they lead to: so batches grow with the load,
    and a server that is far away is kept supplied by several requests under way. Deadline changes
    go one request at a time, since a later one must not be overtaken. Transient errors are retried
    for ten minutes (a lease lost for that long is redelivered anyway). An id that the server
    refuses is found by halving the batch, or named by exactly-once delivery, which has done what
    the others ask for.
    """

    def __init__(
        self, rpc: Callable[[], Rpc], path: str, on_timeout: Callable[[], object] = bool
    ) -> None:
        self._rpc = rpc
        self._on_timeout = on_timeout
        self._path = path
        self._acks: Batch = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._gathering: asyncio.Handle | None = None
        #: When a request left last, by the loop's clock.
        self._sent_at = 0.0
        #: Whether what has gathered leaves before its time, with nothing under way.
        self._is_urgent = False
        self._deadlines: dict[int, Batch] = {}
        self._deadline_task: asyncio.Task[None] | None = None
        self._reported = ""
        #: Since when no acknowledgement was confirmed, by the loop's clock, while some wait.
        self._unconfirmed_since = 0.0

    def unconfirmed_seconds(self, now: float) -> float:
        """Return for how long acknowledgements wait and none was confirmed; 0.0: none waits."""
        if not self._acks and not self._requests:
            return 0.0
        return max(0.0, now - self._unconfirmed_since)

    @property
    def idle(self) -> bool:
        """Whether everything has been sent and answered."""
        return not self._acks and not self._requests and self._deadline_task is None

    async def wait_idle(self) -> None:
        """Send what has gathered; return when everything so far has been sent and answered."""
        while not self.idle:
            self._send_acks()
            under_way = self._requests | {*filter(None, [self._deadline_task])}
            await asyncio.wait(under_way)

    def ack(self, ack_id: str, done: Done, *, is_urgent: bool) -> None:
        """Acknowledge; ``done(confirmed)`` is called when the server has answered for good.

        An urgent one does not wait for others, only for the answer to a request under way.
        """
        loop = asyncio.get_running_loop()
        if not self._acks and not self._requests:
            self._unconfirmed_since = loop.time()
        self._acks[ack_id] = done
        if len(self._acks) >= MAX_ACK_IDS:
            self._send_acks()
        elif is_urgent and not self._is_urgent:
            self._is_urgent = True
            if not self._requests:
                self._send_soon(loop)
        if self._gathering is None and self._acks:
            self._gathering = loop.call_at(self._sent_at + _GATHER_SECONDS, self._send_acks)

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send with others of this turn."""
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = loop.call_soon(self._send_acks)

    def modify(self, ack_id: str, seconds: int, done: Done) -> None:
        """Let the lease end in ``seconds`` (0..600)."""
        self._deadlines.setdefault(seconds, {})[ack_id] = done
        if self._deadline_task is None:
            self._deadline_task = asyncio.get_running_loop().create_task(self._send_deadlines())

    def _send_acks(self) -> None:
        """Send what has gathered, unless too much is under way: then its answer does."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if not self._acks or len(self._requests) >= _MAX_REQUESTS:
            return
        self._sent_at = asyncio.get_running_loop().time()
        acks, self._acks, self._is_urgent = self._acks, {}, False
        for part in _parts(acks):
            task = asyncio.get_running_loop().create_task(self._send(part, self._acknowledge))
            self._requests.add(task)
            task.add_done_callback(self._on_answer)

    def _on_answer(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            self._unconfirmed_since = task.get_loop().time()
        if task.cancelled() or not self._acks:
            return
        if self._is_urgent or self._gathering is None:
            self._send_acks()

    async def _acknowledge(self, ids: list[str]) -> None:
        await self._rpc().acknowledge(self._path, ids)

    async def _send_deadlines(self) -> None:
        try:
            while self._deadlines:
                seconds, batch = self._deadlines.popitem()
                for part in _parts(batch):
                    await self._send_deadline(part, seconds)
        finally:
            self._deadline_task = None

    async def _send_deadline(self, part: Batch, seconds: int) -> None:
        await self._send(
            part, lambda ids: self._rpc().modify_ack_deadline(self._path, ids, seconds)
        )

    async def _send(
        self,
        batch: Batch,
        call: Callable[[list[str]], Awaitable[object]],
    ) -> None:
        give_up_at = asyncio.get_running_loop().time() + _RETRY_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await call(list(batch))
            except grpc.aio.AioRpcError as error:
                refused = refused_ack_ids(error)
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._on_timeout()
                if refused:
                    batch = self._sort_out(batch, refused, error)
                may_repeat = refused or is_transient(error)
                if batch and may_repeat and asyncio.get_running_loop().time() < give_up_at:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_PAUSE_SECONDS)
                    continue
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT and len(batch) > 1:
                    await self._halve(batch, call)
                    return
                self._give_up(batch, error)
            else:
                self._reported = ""
                _answer(batch, confirmed=True)
            return

    def _sort_out(
        self,
        batch: Batch,
        refused: dict[str, bool],
        error: grpc.aio.AioRpcError,
    ) -> Batch:
        """Answer all but those that exactly-once delivery wants to have sent again."""
        _answer({k: done for k, done in batch.items() if k not in refused}, confirmed=True)
        self._give_up({k: done for k, done in batch.items() if refused.get(k) is False}, error)
        return {k: done for k, done in batch.items() if refused.get(k)}

    def _give_up(self, batch: Batch, error: grpc.aio.AioRpcError) -> None:
        if not batch:
            return
        _answer(batch, confirmed=False)
        translated = translate(error, self._path)
        if self._reported == type(translated).__name__ and not refused_ack_ids(error):
            return  # already logged, and not over: each of the next messages would repeat it
        self._reported = type(translated).__name__
        # A deleted subscription can't redeliver; its puller gets NOT_FOUND. So ends each process's
        # control subscription.
        is_gone = error.code() is grpc.StatusCode.NOT_FOUND
        logger.log(
            logging.DEBUG if is_gone else logging.WARNING,
            "Acknowledgement not confirmed, the messages may be delivered again: %s",
            translated,
            extra={"action": "ack_failed", "subscription": self._path, "count": len(batch)},
        )

    async def _halve(
        self,
        batch: Batch,
        call: Callable[[list[str]], Awaitable[object]],
    ) -> None:
        items = list(batch.items())
        middle = len(items) // 2
        await self._send(dict(items[:middle]), call)
        await self._send(dict(items[middle:]), call)


def _parts(batch: Batch) -> list[Batch]:
    """Return a batch in parts that fit a request: in number and in bytes."""
    parts: list[Batch] = []
    size = MAX_ACK_ID_BYTES  # the first one begins a part
    for ack_id, done in batch.items():
        size += len(ack_id) + _FRAMING_BYTES  # ids are ASCII
        if size > MAX_ACK_ID_BYTES or len(parts[-1]) >= MAX_ACK_IDS:
            parts.append({})
            size = len(ack_id) + _FRAMING_BYTES
        parts[-1][ack_id] = done
    return parts


def _answer(batch: Batch, *, confirmed: bool) -> None:
    for done in batch.values():
        done(confirmed)
