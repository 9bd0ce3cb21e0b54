"""StreamingPull: messages leave when they are leased; a task reads what the client has to say.

What is just being published leaves before its commit, as it does from the service: "At the same
time as writing the message to storage, Pub/Sub delivers it to subscribers"
(https://cloud.google.com/pubsub/architecture). If that commit fails, the publisher has no
confirmation. All else waits: a lease that can't be written is none. So does what an exactly-once
subscription delivers, and what goes to a connection that has just published: the message ids are
there first, since users compare them.

Leases belong to the subscription, not to the stream: they stay when a stream ends, however it
ends. A half-close means that the client will send no more requests: the stream ends OK.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import TYPE_CHECKING

from convotic_emulator.engine.delivery import MAX_RESPONSE_MESSAGES, Waiter
from convotic_emulator.engine.lease import Consumer
from convotic_emulator.engine.names import check_name
from convotic_emulator.engine.state import hear
from convotic_emulator.errors import InvalidArgument, PubsubError
from convotic_emulator.services.checks import (
    MAX_ACK_DEADLINE_SECONDS,
    check_ack_deadline,
    check_pullable,
)
from convotic_emulator.services.reply import fill_messages
from convotic_emulator.services.rpc import EagerCoroutine, call_error
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.registry import Subscription
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Call
    from convotic_emulator.storage.message import Message

__all__ = ["StreamingPull"]

_RESPONSE = pubsub.StreamingPullResponse
#: StreamingPullRequest.protocol_version of clients that expect an answer to an empty request.
_KEEPALIVE_VERSION = 1
#: The service ends a stream whose client was silent for so long; such clients write every 30 s.
_SILENT_CLIENT_SECONDS = 60.0
#: The reader of what was sent is often woken on the writer's processor, since writers mostly wait
#: next: there it would wait until this thread does, with another processor idle. Some systems have
#: no such call.
_let_woken_run: Callable[[], object] = getattr(os, "sched_yield", bool)


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


class _Stream(Waiter):
    """One open stream: what it holds, and what it has to send. ``result`` is its end."""

    result: asyncio.Future[None]

    def __init__(self, engine: Engine, call: Call, first: Proto) -> None:
        name = check_name(first.subscription, "subscriptions")
        self._subscription: Subscription = engine.registry.subscription(name)
        check_pullable(self._subscription.proto)
        check_ack_deadline(first.stream_ack_deadline_seconds)
        super().__init__(
            self._subscription.state,
            Consumer(first.max_outstanding_messages, first.max_outstanding_bytes),
            max_messages=MAX_RESPONSE_MESSAGES,
            lease_seconds=first.stream_ack_deadline_seconds,
        )
        self._engine = engine
        self._call = call
        self._first = first
        self._reader: asyncio.Task[None] | None = None
        #: A response that waits for its commit, or for a client that does not read.
        self._sending: asyncio.Task[None] | None = None
        #: A response that is due at once: confirmations of an exactly-once client's
        #: acknowledgements, or the answer to a keepalive.
        self._due: Proto | None = None
        #: Current clients send an empty request every 30 s, and replace a stream that has no
        #: response within 15 s.
        self._answers_keepalive = first.protocol_version >= _KEEPALIVE_VERSION

    async def run(self) -> None:
        """Send until the client has half-closed, or the subscription or the server goes away."""
        self._apply(self._first)
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._on_read_end)
        self._go_on()
        try:
            await self.result
        finally:
            self._engine.dispatcher.leave(self)
            # Cancelled tasks keep their frames, which keep the stream: that would be a cycle.
            reader, sending, self._reader, self._sending = self._reader, self._sending, None, None
            reader.cancel()
            if sending is not None:
                sending.cancel()
            if self.result.done() and not self.result.cancelled():
                self.result.exception()  # seen: this task may have been cancelled meanwhile

    def give(self, messages: list[Message]) -> bool:
        """Send a response; return whether it is sent, and the stream ready for more."""
        sending = EagerCoroutine(self._respond(messages))
        if sending.has_ended:
            return not self.result.done()
        self._sending = asyncio.create_task(sending)
        self._sending.add_done_callback(self._on_sent)
        return False

    def steps_aside(self) -> bool:
        """Make no response while many wait for a client that does not read."""
        if self._call.is_drained:
            return False
        self._sending = asyncio.create_task(self._call.drained())
        self._sending.add_done_callback(self._on_sent)
        return True

    def _go_on(self) -> None:
        """Do what there is to do next, unless a response is on its way."""
        if self._sending is not None or self.result.done():
            return
        try:
            if self._reader is not None and self._reader.done():
                self._reader.result()
                self.result.set_result(None)
            elif self._due is None or self.give([]):
                self._engine.check_subscription(self._subscription)
                self._engine.dispatcher.wait(self)
        except Exception as error:  # noqa: BLE001  # what the stream ends with
            self.refuse(error)

    def _on_read_end(self, reader: asyncio.Task[None]) -> None:
        if reader.cancelled():
            self.result.cancel()
        else:
            self._go_on()

    def _on_sent(self, _sending: asyncio.Task[None]) -> None:
        self._sending = None
        self._go_on()

    async def _respond(self, messages: list[Message]) -> None:
        size = sum(len(message.body or b"") for message in messages)
        self._call.reserve(size)
        try:
            response, self._due = self._due, None
            commits, numbers = self._engine.commits, self._engine.store.numbers
            may_leave = response is None and numbers.are_being_published(messages)
            is_publisher = self._call.peer in commits.publishers and numbers.are_new(messages)
            response = response or _RESPONSE()
            fill_messages(self.state, response, messages)
            properties = response.subscription_properties
            rules = self.state.rules
            properties.exactly_once_delivery_enabled = rules.exactly_once
            properties.message_ordering_enabled = rules.ordered
            if rules.exactly_once or is_publisher or not may_leave:
                await commits.committed()
            if is_publisher:
                await asyncio.sleep(0)  # the answer is written in this turn of the loop
                await self._call.have_read()
            await self._call.write(response)
            if may_leave:
                _let_woken_run()  # the commit and its answer can wait for the reader
        except Exception as error:  # noqa: BLE001  # as above
            self.refuse(error)
        finally:
            self._call.reserve(-size)

    async def _read(self) -> None:
        while (request := await self._next_request()) is not None:
            _check_later(request)
            self._apply(request)
            if self._answers_keepalive and not request.ByteSize():
                self._due = self._due or _RESPONSE()
                self._send_due()
            await self._engine.commits.committed()

    async def _next_request(self) -> Proto | None:
        """Return what the client sends next; None: it has half-closed, or is no longer there."""
        limit = _SILENT_CLIENT_SECONDS if self._answers_keepalive else None
        try:
            async with asyncio.timeout(limit):
                return await self._call.read()
        except TimeoutError:
            return None

    def _apply(self, request: Proto) -> None:
        """Do what a request asks for: acknowledge, move deadlines, change the stream's own."""
        self._engine.check_subscription(self._subscription)
        if request.stream_ack_deadline_seconds:
            check_ack_deadline(request.stream_ack_deadline_seconds)
            self.lease_seconds = request.stream_ack_deadline_seconds
        state, now_us = self.state, self._engine.clock.now_us()
        hear(self.consumer)
        refused = state.acknowledge(request.ack_ids, now_us) if request.ack_ids else []
        changes = _deadline_changes(request)
        unchanged = state.modify(changes, now_us) if changes else []
        if state.rules.exactly_once and (request.ack_ids or changes):
            self._confirm(request, set(refused), set(unchanged))

    def _confirm(self, request: Proto, refused: set[str], unchanged: set[str]) -> None:
        """Have the next response say what became of acknowledgements and deadlines."""
        if self._due is None:
            self._due = _RESPONSE()
        acks = self._due.acknowledge_confirmation
        acks.ack_ids.extend(a for a in request.ack_ids if a not in refused)
        acks.invalid_ack_ids.extend(refused)
        deadlines = self._due.modify_ack_deadline_confirmation
        deadlines.ack_ids.extend(a for a in request.modify_deadline_ack_ids if a not in unchanged)
        deadlines.invalid_ack_ids.extend(unchanged)
        if self._reader is not None:  # else the stream is about to begin
            self._send_due()

    def _send_due(self) -> None:
        self._engine.dispatcher.leave(self)
        self._go_on()


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
