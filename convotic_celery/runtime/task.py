"""A handler as a Celery task, and the base of all tasks of our app.

The task's side of the contract (``docs/delivery.md`` §3) is what it raises: Celery's ``Retry`` for
a failed run with attempts left, the error itself for the last one. What that does to the message is
decided on the worker's side, in ``request.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from celery.app.task import Task
from celery.exceptions import Ignore, Retry, WorkerShutdown, WorkerTerminate

from convotic_celery.context.publishing import encode_json
from convotic_celery.errors import InvalidMessage, PublishRefused
from convotic_celery.runtime.control import RunControl, hold_lease
from convotic_celery.runtime.coroutine import run_coroutine
from convotic_celery.runtime.dead_letter_hook import tell_dead_letter_async, tell_dead_letter_sync
from convotic_celery.runtime.outcome import (
    Again,
    Dropped,
    Duplicate,
    GivenUp,
    GiveUp,
    HandlerExited,
    Later,
    judge,
)
from convotic_celery.runtime.payload import MessageFacts, task_id_of
from convotic_celery.runtime.run import Execution, build_message, run_async, run_sync
from convotic_celery.sdk.outcomes import DeadLetter

if TYPE_CHECKING:
    from numbers import Real

    from celery.result import AsyncResult

    from convotic_celery.runtime.control import HoldLease
    from convotic_celery.runtime.publish import HandlerPublisher
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["ConvoticTask", "HandlerTask"]

#: What ``apply_async`` refuses, and why.
_REFUSED = {
    "link": "a handler's message carries no callbacks; publish to the next topic from the handler",
    "link_error": "a handler's message carries no callbacks; read its dead-letter topic",
    "chain": "a handler can't be part of a chain; publish to the next topic from the handler",
    "chord": "a handler can't be part of a chord: it has no result",
    "eta": "Pub/Sub has no delayed delivery; use ctx.pubsub.publish(…, delay=…)",
    "countdown": "Pub/Sub has no delayed delivery; use ctx.pubsub.publish(…, delay=…)",
    "expires": "a handler's message does not expire; check message.published_at in the handler",
}

#: Passed through untouched: the worker is being told to stop.
_WORKER_STOPS = (WorkerShutdown, WorkerTerminate, GeneratorExit, asyncio.CancelledError)


class ConvoticTask(Task[Any, Any]):
    """Base of every task of our app: an ordinary ``@app.task`` may be ``async def``."""

    abstract = True

    @property
    def runs_on_loop(self) -> bool:
        """True if the default pool may run it on the event loop.

        An async task whose result is stored runs in a thread, its coroutine on the process's loop:
        result backends block.
        """
        return bool(inspect.iscoroutinefunction(self.run) and self.ignore_result)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; a coroutine is run to its end."""
        result = super().__call__(*args, **kwargs)
        return run_coroutine(self, result) if inspect.iscoroutine(result) else result


class HandlerTask(Task[Any, Any]):
    """A registered handler. Made by ``registry.py``; one class and one instance each."""

    abstract = True
    Request = "convotic_celery.runtime.request:HandlerRequest"
    acks_late = True
    acks_on_failure = False
    acks_on_timeout = False
    reject_on_worker_lost = False
    retry_on_worker_lost = False
    #: State goes through events; a result nobody asked for would only fill the backend.
    ignore_result = True
    typing = False
    #: Expected: no traceback in the log.
    throws = (DeadLetter, GivenUp, InvalidMessage)

    definition: ClassVar[HandlerDefinition]
    execution: ClassVar[Execution]
    publisher: ClassVar[HandlerPublisher]

    @property
    def runs_on_loop(self) -> bool:
        """True for an ``async def`` handler."""
        return self.definition.is_async

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the handler on a message (in a worker), or on data (called directly, for tests)."""
        request: Any = self.request  # Celery looks it up by greenlet each time
        facts: MessageFacts | None = request.get("convotic")
        if facts is None:
            return self._call_directly(*args, **kwargs)
        if "give_up" in facts:
            self._give_up(args[0], facts)
        control = self._make_control(partial(hold_lease, str(request.id)))
        try:
            self._run(args[0], facts, control)
        except _WORKER_STOPS:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises has a meaning
            self._conclude(exc, args[0], facts, control.handler_seconds)
        except BaseException as exc:  # noqa: BLE001 - sys.exit() in a handler must not end the worker
            exited = HandlerExited(f"the handler raised {exc!r}")
            exited.__cause__ = exc
            self._conclude(exited, args[0], facts, control.handler_seconds)

    def retry(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: Celery's retry publishes anew, to every subscriber of the topic.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{self.name}: self.retry() would publish the message again to every subscriber of "
            f"{self.definition.topic}. Raise convotic_celery.Retry(delay=…), or any error."
        )

    def apply_async(  # noqa: PLR0917 - Celery's signature
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Publish ``args[0]`` as a raw message that only this handler gets.

        ``kwargs`` may have ``attributes`` and ``ordering_key``. Blocks until the publish is
        confirmed. The returned result only has the task's id: results of handlers are not stored.

        Raises:
            PublishRefused: The call asks for what a raw message can't carry, or breaks a limit.
        """
        self._refuse({**options, "link": link, "link_error": link_error})
        del task_id, producer, shadow  # Celery's; a message's task id follows from its message id
        data, attributes, ordering_key = _call_arguments(self.name, args, kwargs)
        if self.app.conf.task_always_eager:
            return self.apply((data,), {"attributes": attributes})
        message_id = self.publisher.publish(self.definition, data, attributes, ordering_key)
        result = self.AsyncResult(task_id_of(self.definition.subscription, message_id))
        result.ignored = True  # as Celery's own: nobody waits for what is not stored
        return result

    def _make_control(self, hold: HoldLease) -> RunControl:
        options = self.definition.options
        return RunControl(options.run_limit, hold, bound_seconds=options.max_lease_duration)

    def _run(self, raw: bytes, facts: MessageFacts, control: RunControl) -> None:
        message = build_message(self.definition, raw, facts)
        if self.definition.is_async:
            run_coroutine(self, run_async(self.execution, message, facts, control))
        else:
            run_sync(self.execution, message, facts, control)

    def _conclude(
        self, error: Exception, raw: bytes, facts: MessageFacts, elapsed: float
    ) -> NoReturn:
        """Raise what tells Celery the meaning of ``error``.

        Celery's ``Retry`` publishes nothing when it is raised (only ``Task.retry`` does).
        """
        verdict = judge(
            error,
            self.definition.options,
            attempt=facts["attempt"],
            elapsed_seconds=elapsed,
            random=random.random(),  # noqa: S311 - a back-off's jitter
        )
        match verdict:
            case Again(delay_seconds=delay):
                raise Retry(exc=error, when=cast("Real", round(delay, 3))) from error
            case Later(delay_seconds=delay):
                raise Retry(exc=error, when=cast("Real", round(delay, 3)))
            case Dropped(reason=reason):
                raise (Duplicate if isinstance(error, Duplicate) else Ignore)(reason) from error
            case GiveUp(error=final):
                self._tell_dead_letter(final, raw, facts)
                raise final if final is error else final.with_traceback(error.__traceback__)

    def _give_up(self, raw: bytes, facts: MessageFacts) -> NoReturn:
        """Do not run the handler: call ``on_dead_letter``, and raise what the message ends with."""
        error = GivenUp(facts["give_up"], facts["attempt"])
        self._tell_dead_letter(error, raw, facts)
        raise error

    def _tell_dead_letter(self, error: Exception, raw: bytes, facts: MessageFacts) -> None:
        if self.definition.options.on_dead_letter is None:
            return
        if self.definition.is_async:
            run_coroutine(self, tell_dead_letter_async(self.execution, error, raw, facts))
        else:
            tell_dead_letter_sync(self.execution, error, raw, facts)

    def _call_directly(self, *args: Any, **kwargs: Any) -> Any:
        """Run on plain data, as ``handler_task(order)`` or an eager call does. Errors pass through.

        Raises:
            InvalidMessage: The data does not fit, or it came in Celery's own envelope.
        """
        if not (self.request.called_directly or self.request.is_eager):
            raise InvalidMessage(
                f"{self.name} is a handler: it takes raw messages of topic "
                f"{self.definition.topic}, not Celery's task messages"
            )
        data, attributes, ordering_key = _call_arguments(self.name, args, kwargs)
        facts: MessageFacts = {
            "message_id": str(uuid.uuid4()),
            "attributes": dict(attributes),
            "ordering_key": ordering_key,
            "published_at": datetime.now(UTC).isoformat(),
            "attempt": 1,
            "losses": 0,
            "replay_count": 0,
            "empty": data is None,
            "trace": {},
        }
        control = self._make_control(lambda _: True)
        self._run(b"" if data is None else encode_json(data), facts, control)

    def _refuse(self, options: Mapping[str, Any]) -> None:
        for option, reason in _REFUSED.items():
            if options.get(option):
                raise PublishRefused(f"{self.name} can't be called with {option}=: {reason}.")


def _call_arguments(
    name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[Any, Mapping[str, str], str]:
    """Return (data, attributes, ordering key) of a call like ``delay(order, attributes={…})``."""
    options = dict(kwargs or {})
    attributes = options.pop("attributes", None) or {}
    ordering_key = options.pop("ordering_key", "")
    if options or len(args or ()) > 1:
        raise PublishRefused(
            f"{name} takes one argument, the data, and attributes= and ordering_key=; "
            f"not {', '.join(options) or f'{len(args or ())} arguments'}."
        )
    return (args[0] if args else None), attributes, ordering_key
