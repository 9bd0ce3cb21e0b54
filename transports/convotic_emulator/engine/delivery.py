"""Waiting consumers, and how messages are shared between them: the asyncio side of delivery.

A subscription's waiters are served in turn; when fewer messages are there than they could take
together, each gets its share. Nothing polls: the state machine wakes us.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_emulator.engine.clock import Clock
    from convotic_emulator.engine.commits import Commits
    from convotic_emulator.engine.lease import Consumer
    from convotic_emulator.engine.state import SubscriptionState
    from convotic_emulator.storage.message import Message

__all__ = ["MAX_RESPONSE_BYTES", "Dispatcher", "FutureWaiter", "Waiter"]

#: Clients that know of an emulator have gRPC's default limit of 4 MiB a response.
MAX_RESPONSE_BYTES = 3_500_000
#: Enough to make the cost of a response small beside that of its messages.
MAX_RESPONSE_MESSAGES = 1000


class Waiter:
    """A consumer that is ready for messages, while it is in the line.

    ``result`` is done when it wants nothing any more, whatever the line says.
    """

    def __init__(
        self,
        state: SubscriptionState,
        consumer: Consumer,
        *,
        max_messages: int,
        lease_seconds: int,
    ) -> None:
        self.state = state
        self.consumer = consumer
        self.max_messages = min(max_messages, MAX_RESPONSE_MESSAGES)
        self.lease_seconds = lease_seconds
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def give(self, messages: list[Message]) -> bool:
        """Take leased messages, at least one; True to stay in the line, at its end.

        Raises nothing.
        """
        raise NotImplementedError

    def steps_aside(self) -> bool:
        """Return whether it can take nothing now; it leaves the line and rejoins by itself."""
        return False

    def refuse(self, error: Exception) -> None:
        """Take note that there will be no message."""
        if not self.result.done():
            self.result.set_exception(error)


class FutureWaiter(Waiter):
    """A consumer that is ready for one response: ``result`` is set to its messages."""

    result: asyncio.Future[list[Message]]

    def give(self, messages: list[Message]) -> bool:
        """Set the result."""
        self.result.set_result(messages)
        return False

    def give_up(self) -> None:
        """Have it wait no longer: the result is empty, if there is none."""
        if not self.result.done():
            self.result.set_result([])


class Dispatcher:
    """Hands available messages to waiters, after the requests that came together."""

    def __init__(self, clock: Clock, commits: Commits) -> None:
        self._clock = clock
        self._commits = commits
        self._waiting: dict[SubscriptionState, deque[Waiter]] = {}
        self._woken: set[SubscriptionState] = set()
        self._scheduled = False
        self._closed: Exception | None = None

    def wake(self, state: SubscriptionState) -> None:
        """Serve a subscription's waiters soon."""
        if state in self._waiting:
            self._woken.add(state)
            if not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._dispatch)

    def serve(self) -> None:
        """Serve woken subscriptions now, not in the next round of the loop."""
        if self._woken:
            self._dispatch()

    def wait(self, waiter: Waiter) -> None:
        """Put a waiter into the line."""
        if self._closed is not None:
            waiter.refuse(self._closed)
            return
        self._waiting.setdefault(waiter.state, deque()).append(waiter)
        self.wake(waiter.state)

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of the line, if it is in."""
        queue = self._waiting.get(waiter.state)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[waiter.state]

    def drop(self, state: SubscriptionState, error: Exception) -> None:
        """Refuse all waiters of a subscription that is gone."""
        for waiter in self._waiting.pop(state, ()):
            waiter.refuse(error)

    def drop_all(self, error: Exception) -> None:
        """Refuse all waiters, and new ones until :meth:`reopen`."""
        self._closed = error
        for state in list(self._waiting):
            self.drop(state, error)

    def reopen(self) -> None:
        """End :meth:`drop_all`."""
        self._closed = None

    def has_waiters(self, state: SubscriptionState) -> bool:
        """Return whether consumers wait for messages of a subscription."""
        return state in self._waiting

    def _dispatch(self) -> None:
        self._scheduled = False
        woken, self._woken = self._woken, set()
        try:
            for state in woken:
                queue = self._waiting.get(state)
                if queue:
                    self._serve(state, queue)
                    if not queue:
                        del self._waiting[state]
        except sqlite3.Error as error:
            self._commits.fail(error)
        self._commits.commit_soon()

    def _serve(self, state: SubscriptionState, queue: deque[Waiter]) -> None:
        now_us = self._clock.now_us()
        some_stayed = False
        is_live = any(not waiter.consumer.is_silent for waiter in queue)
        for turn in range(len(queue), 0, -1):
            if not state.backlog.is_deliverable():
                return
            waiter = queue[0]
            if waiter.result.done() or waiter.steps_aside():
                queue.popleft()
                continue
            messages: list[Message] = []
            consumer = waiter.consumer
            #: While others wait, a silent one gets one message, and the next when it reacts.
            is_probed = consumer.is_silent and is_live
            if consumer.has_room() and not (is_probed and consumer.held_messages):
                waiting = state.backlog.waiting_units() if turn > 1 else 0
                messages = state.take(
                    consumer,
                    units=max(1, -(-waiting // turn)) if turn > 1 else None,
                    max_messages=1 if is_probed else waiter.max_messages,
                    max_bytes=MAX_RESPONSE_BYTES,
                    lease_us=waiter.lease_seconds * 1_000_000,
                    now_us=now_us,
                )
            queue.popleft()  # only now: if the file fails, this waiter must be refused too
            if not messages:
                queue.append(waiter)
            elif waiter.give(messages):
                queue.append(waiter)
                some_stayed = True
        if some_stayed and state.backlog.is_deliverable():
            self.wake(state)  # in the next round of the loop: other subscriptions come first
