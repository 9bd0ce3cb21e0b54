"""StreamingPull: one task that sends, one that reads what the client has to say.

Leases belong to the subscription, not to the stream: they stay when a stream ends, however it
ends. A half-close means that the client will send no more requests: the stream ends OK.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from convotic_emulator.delivery import MAX_RESPONSE_MESSAGES, Waiter
from convotic_emulator.errors import InvalidArgument, PubsubError
from convotic_emulator.lease import Consumer, Message
from convotic_emulator.naming import check_name
from convotic_emulator.reply import fill_messages
from convotic_emulator.rpc import call_error
from convotic_emulator.settings import (
    MAX_ACK_DEADLINE_SECONDS,
    Proto,
    check_ack_deadline,
    check_pullable,
)
from convotic_protos import pubsub

if TYPE_CHECKING:
    from convotic_emulator.engine import Engine
    from convotic_emulator.registry import Subscription
    from convotic_emulator.wire.call import Call

__all__ = ["StreamingPull"]

_RESPONSE = pubsub.StreamingPullResponse.pb()


class StreamingPull:
    """The handler of the method; one :class:`_Stream` a call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def serve(self, call: Call) -> None:
        """Serve one stream until either side ends it."""
        call.send_headers()
        try:
            first = await call.read()
            if first is not None:
                await _Stream(self._engine, call, first).run()
        except (PubsubError, sqlite3.Error) as error:
            raise call_error(error, self._engine) from error


class _Stream:
    """One open stream: what it holds, and what it has to send."""

    def __init__(self, engine: Engine, call: Call, first: Proto) -> None:
        self._engine = engine
        self._call = call
        name = check_name(first.subscription, "subscriptions")
        self._subscription: Subscription = engine.registry.subscription(name)
        check_pullable(self._subscription.proto)
        check_ack_deadline(first.stream_ack_deadline_seconds)
        self._lease_seconds: int = first.stream_ack_deadline_seconds
        self._consumer = Consumer(first.max_outstanding_messages, first.max_outstanding_bytes)
        self._first = first
        #: While the stream is ready for messages.
        self._waiter: Waiter | None = None
        #: What an exactly-once client is still to be told about its acknowledgements.
        self._confirmations: Proto | None = None

    async def run(self) -> None:
        """Send until the client has half-closed, or the subscription or the server goes away."""
        self._apply(self._first)
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(self._on_read_end)
        try:
            while not reader.done():
                messages = await self._next(reader)
                if messages or self._confirmations is not None:
                    await self._send(messages)
            reader.result()
        finally:
            reader.cancel()

    async def _next(self, reader: asyncio.Task[None]) -> list[Message]:
        """Wait for messages; none when the client has ended the stream."""
        self._engine.check_subscription(self._subscription)
        waiter = Waiter(
            self._subscription.state,
            self._consumer,
            max_messages=MAX_RESPONSE_MESSAGES,
            lease_seconds=self._lease_seconds,
            result=asyncio.get_running_loop().create_future(),
        )
        self._waiter = waiter
        self._engine.dispatcher.wait(waiter)
        try:
            if reader.done() or self._confirmations is not None:
                return []
            messages = await waiter.result
        finally:
            self._waiter = None
            self._engine.dispatcher.leave(waiter)
        self._engine.check_subscription(self._subscription)
        return messages

    def _on_read_end(self, _reader: asyncio.Task[None]) -> None:
        self._interrupt()

    async def _send(self, messages: list[Message]) -> None:
        response = self._confirmations or _RESPONSE()
        self._confirmations = None
        fill_messages(self._subscription.state, response, messages)
        properties = response.subscription_properties
        rules = self._subscription.state.rules
        properties.exactly_once_delivery_enabled = rules.exactly_once
        properties.message_ordering_enabled = rules.ordered
        await self._engine.committed()
        await self._call.write(response)

    async def _read(self) -> None:
        while (request := await self._call.read()) is not None:
            _check_later(request)
            self._apply(request)
            await self._engine.committed()

    def _apply(self, request: Proto) -> None:
        """Do what a request asks for: acknowledge, move deadlines, change the stream's own."""
        self._engine.check_subscription(self._subscription)
        if request.stream_ack_deadline_seconds:
            check_ack_deadline(request.stream_ack_deadline_seconds)
            self._lease_seconds = request.stream_ack_deadline_seconds
            if self._waiter is not None:
                self._waiter.lease_seconds = self._lease_seconds
        state, now_us = self._subscription.state, self._engine.clock.now_us()
        refused = state.acknowledge(request.ack_ids, now_us) if request.ack_ids else []
        changes = _deadline_changes(request)
        unchanged = state.modify(changes, now_us) if changes else []
        if state.rules.exactly_once and (request.ack_ids or changes):
            self._confirm(request, set(refused), set(unchanged))

    def _confirm(self, request: Proto, refused: set[str], unchanged: set[str]) -> None:
        """Have the next response say what became of acknowledgements and deadlines."""
        if self._confirmations is None:
            self._confirmations = _RESPONSE()
        acks = self._confirmations.acknowledge_confirmation
        acks.ack_ids.extend(a for a in request.ack_ids if a not in refused)
        acks.invalid_ack_ids.extend(refused)
        deadlines = self._confirmations.modify_ack_deadline_confirmation
        deadlines.ack_ids.extend(a for a in request.modify_deadline_ack_ids if a not in unchanged)
        deadlines.invalid_ack_ids.extend(unchanged)
        self._interrupt()

    def _interrupt(self) -> None:
        """Have :meth:`run` look at what else there is to do than sending messages."""
        if self._waiter is not None and not self._waiter.result.done():
            self._waiter.result.set_result([])


def _deadline_changes(request: Proto) -> list[tuple[str, int]]:
    ack_ids, seconds = request.modify_deadline_ack_ids, request.modify_deadline_seconds
    if len(ack_ids) != len(seconds):
        raise InvalidArgument(
            f"modify_deadline_ack_ids has {len(ack_ids)} entries, modify_deadline_seconds"
            f" {len(seconds)}: they must have the same number."
        )
    for value in seconds:
        if not 0 <= value <= MAX_ACK_DEADLINE_SECONDS:
            raise InvalidArgument(
                f"Invalid ack deadline given (value={value}): it must be between 0 and 600."
            )
    return list(zip(ack_ids, seconds, strict=True))


def _check_later(request: Proto) -> None:
    """Refuse what only the first request of a stream may carry."""
    for field in (
        "subscription",
        "client_id",
        "max_outstanding_messages",
        "max_outstanding_bytes",
        "protocol_version",
    ):
        if getattr(request, field):
            raise InvalidArgument(f"{field} can only be set in the first request of a stream.")
