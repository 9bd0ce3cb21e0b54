"""Runs one delivery as a worker would, and notes what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.worker import state

from convotic_celery.log import describe_error
from convotic_celery.runtime.delivery.attributes import (
    Origin,
    dead_letter_attributes,
    user_attributes,
)
from convotic_celery.runtime.delivery.outcome import Returned, settle
from convotic_celery.runtime.delivery.policy import HandlerPolicy
from convotic_celery.runtime.delivery.settlement import Ack, Defer, Fail, RetryRun, Settlement
from convotic_celery.runtime.execution.coroutine import drive
from convotic_celery.runtime.execution.current_run import Run
from convotic_celery.sdk.outcomes import Outcome
from convotic_celery.testing.broker import DeadLetterSeen, RunSeen, parse_data
from convotic_pubsub.queue import Acknowledge, Deliver

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp
    from convotic_celery.testing.broker import MemoryBroker, Pending
    from convotic_celery.testing.clock import MovingClock

__all__ = ["Runner"]

logger = logging.getLogger(__name__)


class _Request:
    """Stands for the worker's request of a running task: there is no lease to hold."""

    def hold(self, seconds: float) -> None:
        """Do nothing."""


class Runner:
    """Decides, runs and settles, with the worker's own policy, task and outcomes."""

    def __init__(
        self, app: ConvoticApp, broker: MemoryBroker, clock: MovingClock, *, raise_errors: bool
    ) -> None:
        self._app = app
        self._raise_errors = raise_errors
        self._broker = broker
        self._policies = {
            d.queue: HandlerPolicy(d, app.attempts, now=clock.now) for d in app.definitions
        }
        self._clock = clock
        self.runs: list[RunSeen] = []
        self.dead_letters: list[DeadLetterSeen] = []

    async def run_together(self, group: list[Pending]) -> None:
        """Run deliveries of one handler at once: those of a batch."""
        task: Any = self._app.tasks[group[0].definition.queue]
        task.execution.batches.bound = len(group)
        await asyncio.gather(*(self.run(each) for each in group))

    async def run(self, pending: Pending) -> None:
        """Run a delivery to its outcome."""
        pending.deliveries += 1
        received = pending.received._replace(delivery_attempt=pending.deliveries)
        decision = self._policies[pending.definition.queue].decide(received)
        if isinstance(decision, Acknowledge):
            self._note(pending, decision.reason, {"message_id": received.message_id, "attempt": 1})
            return
        assert isinstance(decision, Deliver)
        headers: dict[str, Any] = decision.payload["headers"]
        settlement, error = await self._call(pending, headers, decision.payload["body"])
        self._settle(pending, settlement, error, headers["convotic"])

    async def _call(
        self, pending: Pending, headers: dict[str, Any], body: bytes
    ) -> tuple[Settlement, Exception | None]:
        task: Any = self._app.tasks[pending.definition.queue]
        context: Any = Context(headers, called_directly=False, is_eager=False)

        def call() -> None:
            task.request_stack.push(context)
            try:
                task(body)
            finally:
                task.request_stack.pop()

        state.requests[headers["id"]] = _Request()
        try:
            if task.runs_on_loop:
                coroutine = task.run_on_loop(headers["id"], headers, body)
                await asyncio.create_task(drive(Run(), task, context, coroutine))
            else:
                await asyncio.to_thread(call)
        except Exception as error:  # noqa: BLE001 - the outcome of the run
            return context.settlement, error
        else:
            return settle(Returned(), pending.definition.options), None
        finally:
            state.requests.pop(headers["id"], None)

    def _settle(
        self,
        pending: Pending,
        settlement: Settlement,
        error: Exception | None,
        facts: Mapping[str, Any],
    ) -> None:
        """Do what the worker's request does with the settlement."""
        match settlement:
            case Ack():
                self._note(pending, settlement.outcome, facts, error)
            case RetryRun() | Defer():
                outcome = "retried" if isinstance(settlement, RetryRun) else "deferred"
                raised = getattr(error, "exc", error)
                self._note(pending, outcome, facts, raised)
                self._broker.put_back(pending, settlement.delay_seconds)
                if isinstance(settlement, RetryRun):
                    self._show(pending, raised, f"run {facts['attempt']} failed")
            case Fail():
                self._dead_letter(pending, settlement, error)
                self._note(pending, "dead_lettered", facts, error)
                self._show(pending, error, f"dead letter, {settlement.reason}")

    def _show(self, pending: Pending, error: BaseException | None, what: str) -> None:
        """Log a handler's error, for pytest shows the log of a test that fails; or raise it."""
        if error is None:
            return
        handler, message_id = pending.definition.queue, pending.received.message_id
        logger.warning("%s %s %s\n%s", handler, message_id, what, describe_error(error))
        if self._raise_errors and not isinstance(error, Outcome):
            raise error

    def _dead_letter(self, pending: Pending, fail: Fail, error: Exception | None) -> None:
        received = pending.received
        origin = Origin(
            message_id=fail.message_id,
            subscription=received.subscription,
            topic=pending.definition.topic,
            published_at=received.published_at,
            replay_count=fail.replay_count,
        )
        attributes = dead_letter_attributes(fail, origin, now=self._clock.now())
        seen = DeadLetterSeen(
            handler=pending.definition.queue,
            message_id=fail.message_id,
            data=parse_data(received.data),
            attributes=user_attributes(received.attributes),
            reason=fail.reason,
            error=error,
            raw=received,
            all_attributes={**received.attributes, **attributes},
        )
        self.dead_letters.append(seen)

    def _note(
        self,
        pending: Pending,
        outcome: str,
        facts: Mapping[str, Any],
        error: BaseException | None = None,
    ) -> None:
        self.runs.append(
            RunSeen(
                handler=pending.definition.queue,
                message_id=facts["message_id"],
                attempt=facts["attempt"],
                outcome=outcome,
                error=error,
            )
        )
