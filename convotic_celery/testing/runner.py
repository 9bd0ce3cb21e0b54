"""Runs one delivery as a worker would, and notes what becomes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from celery.app.task import Context
from celery.exceptions import Ignore, Retry
from celery.worker import state

from convotic_celery.runtime.delivery.attributes import (
    Failure,
    dead_letter_attributes,
    replay_count,
    user_attributes,
)
from convotic_celery.runtime.delivery.outcome import Duplicate, Postponed, error_type, reason_of
from convotic_celery.runtime.delivery.payload import first_message_id
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.execution.coroutine import drive
from convotic_celery.runtime.execution.current_run import Run
from convotic_celery.testing.broker import DeadLetterSeen, RunSeen, parse_data
from convotic_pubsub.queue import Acknowledge, DeadLetter, Deliver, History

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp
    from convotic_celery.testing.broker import MemoryBroker, Pending
    from convotic_celery.testing.clock import MovingClock

__all__ = ["Runner"]


class _Request:
    """Stands for the worker's request of a running task: there is no lease to hold."""

    def hold(self, seconds: float) -> None:
        """Do nothing."""


class Runner:
    """Decides, runs and settles, with the worker's own policy, task and outcomes."""

    def __init__(self, app: ConvoticApp, broker: MemoryBroker, clock: MovingClock) -> None:
        self._app = app
        self._broker = broker
        self._policies = {d.queue: HandlerPolicy(d, None, now=clock.now) for d in app.definitions}
        self._clock = clock
        self.runs: list[RunSeen] = []
        self.dead_letters: list[DeadLetterSeen] = []

    async def run(self, pending: Pending) -> None:
        """Run a delivery to its outcome."""
        pending.deliveries += 1
        history = History(pending.failures, pending.hand_backs) if pending.deliveries > 1 else None
        received = replace(pending.received, delivery_attempt=pending.deliveries)
        decision = self._policies[pending.definition.queue].decide(received, history)
        if isinstance(decision, Acknowledge):
            self._note(pending, decision.reason)
        elif isinstance(decision, DeadLetter):
            self._bury(pending, dict(decision.attributes), None)
        else:
            assert isinstance(decision, Deliver)
            await self._call(pending, decision.payload)

    async def _call(self, pending: Pending, payload: dict[str, Any]) -> None:
        task: Any = self._app.tasks[pending.definition.queue]
        headers: dict[str, Any] = payload["headers"]
        context = Context(headers, called_directly=False, is_eager=False)

        def call() -> None:
            task.request_stack.push(context)
            try:
                task(payload["body"])
            finally:
                task.request_stack.pop()

        state.requests[headers["id"]] = _Request()
        try:
            if task.runs_on_loop:
                coroutine = task.run_on_loop(headers["id"], headers, payload["body"])
                await asyncio.create_task(drive(Run(), task, context, coroutine))
            else:
                await asyncio.to_thread(call)
        except Exception as error:  # noqa: BLE001 - the outcome of the run
            self._settle(pending, error)
        else:
            self._note(pending, "succeeded")
        finally:
            state.requests.pop(headers["id"], None)

    def _settle(self, pending: Pending, error: Exception) -> None:
        """Do what the worker's request does with the task's outcome."""
        if isinstance(error, Retry) and isinstance(error.exc, Postponed):
            pending.hand_backs += 1
            self._note(pending, "postponed", error.exc)
            self._broker.put_back(pending, error.exc.delay_seconds)
        elif isinstance(error, Retry):
            self._note(pending, "retried", error.exc)
            pending.failures += 1
            self._broker.put_back(pending, float(cast("float", error.when or 0.0)))
        elif isinstance(error, Ignore):
            self._note(pending, "duplicate" if isinstance(error, Duplicate) else "dropped", error)
        else:
            self._bury(pending, self._describe(pending, error), error)

    def _describe(self, pending: Pending, error: Exception) -> dict[str, str]:
        received, definition = pending.received, pending.definition
        reason = reason_of(error, definition.options)
        return dead_letter_attributes(
            Failure(
                reason=reason,
                message_id=first_message_id(received),
                attempts=0 if reason == "invalid" else pending.failures + 1,
                subscription=received.subscription,
                topic=definition.topic,
                error_type=error_type(error),
                error_message=str(error),
                published_at=received.published_at,
                replay_count=replay_count(received.attributes),
            ),
            now=self._clock.now(),
        )

    def _bury(self, pending: Pending, attributes: dict[str, str], error: Exception | None) -> None:
        received = pending.received
        seen = DeadLetterSeen(
            handler=pending.definition.queue,
            message_id=first_message_id(received),
            data=parse_data(received.data),
            attributes=user_attributes(received.attributes),
            reason=attributes["convotic-dead-letter-reason"],
            error=error,
            raw=received,
            all_attributes={**received.attributes, **attributes},
        )
        self.dead_letters.append(seen)
        self._note(pending, "dead_lettered", error)

    def _note(self, pending: Pending, outcome: str, error: BaseException | None = None) -> None:
        self.runs.append(
            RunSeen(
                handler=pending.definition.queue,
                message_id=first_message_id(pending.received),
                attempt=pending.failures + 1,
                outcome=outcome,
                error=error,
            )
        )
