"""Acknowledgements and deadline changes of one subscription, sent in batches (I/O thread)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

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


class AckBatcher:
    """Sends acknowledgements and deadline changes of one subscription.

    While one request is under way the next batch gathers, so that batches grow with the load and an
    idle queue's ack leaves at once. Transient errors are retried for ten minutes (a lease lost for
    that long is redelivered anyway). An id that the server refuses is found by halving the batch,
    or named by exactly-once delivery, which has done what the others ask for.
    """

    def __init__(self, rpc: Callable[[], Rpc], path: str) -> None:
        self._rpc = rpc
        self._path = path
        self._acks: dict[str, Callable[[bool], None]] = {}
        self._deadlines: dict[int, dict[str, Callable[[bool], None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._reported = ""

    @property
    def idle(self) -> bool:
        """Whether everything has been sent and answered."""
        return self._task is None

    async def wait_idle(self) -> None:
        """Return when everything asked for so far has been sent and answered."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def ack(self, ack_id: str, done: Callable[[bool], None]) -> None:
        """Acknowledge; ``done(confirmed)`` is called when the server has answered for good."""
        self._acks[ack_id] = done
        self._kick()

    def modify(self, ack_id: str, seconds: int, done: Callable[[bool], None]) -> None:
        """Let the lease end in ``seconds`` (0..600)."""
        self._deadlines.setdefault(seconds, {})[ack_id] = done
        self._kick()

    def _kick(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._acks or self._deadlines:
                # Deadlines first: a lease that is about to end can't wait for a batch of acks.
                for seconds in list(self._deadlines):
                    batch = self._deadlines.pop(seconds)
                    for part in _parts(batch):
                        await self._send_deadline(part, seconds)
                acks, self._acks = self._acks, {}
                for part in _parts(acks):
                    await self._send(part, lambda ids: self._rpc().acknowledge(self._path, ids))
        finally:
            self._task = None

    async def _send_deadline(self, part: dict[str, Callable[[bool], None]], seconds: int) -> None:
        await self._send(
            part, lambda ids: self._rpc().modify_ack_deadline(self._path, ids, seconds)
        )

    async def _send(
        self,
        batch: dict[str, Callable[[bool], None]],
        call: Callable[[list[str]], Awaitable[object]],
    ) -> None:
        give_up_at = asyncio.get_running_loop().time() + _RETRY_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await call(list(batch))
            except grpc.aio.AioRpcError as error:
                refused = refused_ack_ids(error)
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
        batch: dict[str, Callable[[bool], None]],
        refused: dict[str, bool],
        error: grpc.aio.AioRpcError,
    ) -> dict[str, Callable[[bool], None]]:
        """Answer all but those that exactly-once delivery wants to have sent again."""
        _answer({k: done for k, done in batch.items() if k not in refused}, confirmed=True)
        self._give_up({k: done for k, done in batch.items() if refused.get(k) is False}, error)
        return {k: done for k, done in batch.items() if refused.get(k)}

    def _give_up(
        self, batch: dict[str, Callable[[bool], None]], error: grpc.aio.AioRpcError
    ) -> None:
        if not batch:
            return
        _answer(batch, confirmed=False)
        translated = translate(error, self._path)
        if self._reported == type(translated).__name__ and not refused_ack_ids(error):
            return  # said, and not over: each of the next messages would say it again
        self._reported = type(translated).__name__
        # What is deleted delivers nothing again, and whoever pulls from it is told: as a process's
        # control subscription at its end.
        is_gone = error.code() is grpc.StatusCode.NOT_FOUND
        logger.log(
            logging.DEBUG if is_gone else logging.WARNING,
            "Acknowledgement not confirmed, the messages may come again: %s",
            translated,
            extra={"action": "ack_failed", "subscription": self._path, "count": len(batch)},
        )

    async def _halve(
        self,
        batch: dict[str, Callable[[bool], None]],
        call: Callable[[list[str]], Awaitable[object]],
    ) -> None:
        items = list(batch.items())
        middle = len(items) // 2
        await self._send(dict(items[:middle]), call)
        await self._send(dict(items[middle:]), call)


def _parts(batch: dict[str, Callable[[bool], None]]) -> list[dict[str, Callable[[bool], None]]]:
    """Return a batch in parts that fit a request: in number and in bytes."""
    parts: list[dict[str, Callable[[bool], None]]] = []
    size = MAX_ACK_ID_BYTES  # the first one begins a part
    for ack_id, done in batch.items():
        size += len(ack_id) + _FRAMING_BYTES  # ids are ASCII
        if size > MAX_ACK_ID_BYTES or len(parts[-1]) >= MAX_ACK_IDS:
            parts.append({})
            size = len(ack_id) + _FRAMING_BYTES
        parts[-1][ack_id] = done
    return parts


def _answer(batch: dict[str, Callable[[bool], None]], *, confirmed: bool) -> None:
    for done in batch.values():
        done(confirmed)
