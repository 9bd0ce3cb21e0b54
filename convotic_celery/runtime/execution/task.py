"""A handler as a Celery task, and the base of all tasks of our app.

The task's side of the contract (``docs/delivery.md`` §3) is what it raises, see ``attempt.py``.
What that does to the message is decided on the worker's side, in ``request.py``.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from celery.app.task import Task
from celery.canvas import Signature

from convotic_celery.context.publishing import encode_json
from convotic_celery.errors import InvalidMessage, PublishRefused
from convotic_celery.runtime.delivery.carriers import mark
from convotic_celery.runtime.delivery.payload import MessageFacts, task_id_of, unknown_facts
from convotic_celery.runtime.delivery.settlement import AlreadyFailed
from convotic_celery.runtime.delivery.steps import drive_async, drive_sync
from convotic_celery.runtime.execution.attempt import (
    Ended,
    attempt,
    attempt_async,
    run_handler,
)
from convotic_celery.runtime.execution.coroutine import explain_cancellation, run_coroutine
from convotic_celery.runtime.execution.deadline import RunDeadline, hold_lease
from convotic_celery.runtime.execution.handler_result import HandlerResult
from convotic_celery.runtime.execution.invoke import Execution, build_message
from convotic_celery.sdk.outcomes import DeadLetter

if TYPE_CHECKING:
    from celery.result import AsyncResult

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
    "task_id": "a message's task id follows from its message id",
    "headers": "a message has attributes; pass attributes={…} as a keyword argument of the task",
    "shadow": "events name the handler",
    "priority": "Pub/Sub has no priorities",
    "queue": "a handler has one queue, its own",
    "exchange": "a handler has one topic, its own",
    "routing_key": "a handler has one queue, its own",
    "serializer": "the data is JSON",
    "compression": "the data is JSON as it is; publish compressed data with the attribute "
    "content-encoding",
    "expires": "a handler's message does not expire; check message.published_at in the handler",
}


class ConvoticTask(Task[Any, Any]):
    """Base of every task of our app: an ordinary ``@app.task`` may be ``async def``."""

    abstract = True
    Request = "convotic_celery.runtime.worker.task_request:TaskRequest"

    @property
    def runs_on_loop(self) -> bool:
        """True for an ``async def`` task: its coroutine runs on the event loop."""
        return inspect.iscoroutinefunction(self.run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; a coroutine is run to its end."""
        result = super().__call__(*args, **kwargs)
        if inspect.iscoroutine(result):
            return run_coroutine(self, explain_cancellation(result))
        return result


@Signature.register_type(name="convotic-handler")
class HandlerSignature(Signature):
    """A call of a handler. A canvas that contains one is refused when it is sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self["subtask_type"] = "convotic-handler"

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> HandlerSignature:
        """Return the signature that a dictionary stands for."""
        return cls(d, app=app)

    def freeze(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: Celery calls this for each part of a canvas, before it sends the first.

        Raises:
            PublishRefused: Always.
        """
        raise PublishRefused(_no_canvas(self.task))


class HandlerTask(Task[Any, Any]):
    """A registered handler. Made by ``binding.py``; one class and one instance each."""

    abstract = True
    acks_late = True
    acks_on_failure = False
    acks_on_timeout = False
    reject_on_worker_lost = False
    retry_on_worker_lost = False
    #: State goes through events; results that are never read would only fill the backend.
    ignore_result = True
    typing = False
    #: Expected: no traceback in the log.
    throws = (AlreadyFailed, DeadLetter, InvalidMessage)

    definition: ClassVar[HandlerDefinition]
    execution: ClassVar[Execution]
    publisher: ClassVar[HandlerPublisher]

    @property
    def runs_on_loop(self) -> bool:
        """True for an ``async def`` handler, and for one that takes batches."""
        return self.definition.runs_on_loop

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the handler on a message (in a worker), or on data (called directly, for tests)."""
        request: Any = self.request  # Celery looks it up each time
        facts: MessageFacts | None = request.get("convotic")
        if facts is None:
            self._call_directly(*args, **kwargs)
            return
        run = attempt(self.execution, args[0], facts, self._start_deadline(str(request.id)))
        if self.definition.runs_on_loop:
            ended = run_coroutine(self, drive_async(run, self.execution))
        else:
            ended = drive_sync(run, self.execution)
        self.raise_ended(ended)

    async def run_on_loop(self, task_id: str, request: Mapping[str, Any], raw: Any) -> None:
        """Do what :meth:`__call__` does, for an ``async def`` handler on the running loop.

        Raises:
            InvalidMessage: The message came in Celery's own envelope.
            Exception: What tells Celery how the run ended (``delivery/carriers.py``).
        """
        self.raise_ended(await self.attempt_on_loop(task_id, request, raw))

    def attempt_on_loop(
        self, task_id: str, request: Mapping[str, Any], raw: Any
    ) -> Coroutine[Any, Any, Ended | None]:
        """Return what :meth:`run_on_loop` awaits, for :meth:`raise_ended`.

        Raises:
            InvalidMessage: The message came in Celery's own envelope.
        """
        facts: MessageFacts | None = request.get("convotic")
        if facts is None:
            raise self._not_raw()
        return attempt_async(self.execution, raw, facts, self._start_deadline(task_id))

    def raise_ended(self, ended: Ended | None) -> None:
        """Raise what tells Celery how the run ended; nothing if the handler returned."""
        if ended is not None:
            request: Any = self.request
            request.settlement = ended.settlement  # for on_failure, which Celery calls next
            raise ended.error

    def _start_deadline(self, task_id: str) -> RunDeadline:
        options = self.definition.options
        hold = partial(hold_lease, task_id)
        return RunDeadline(options.run_limit, hold, bound_seconds=options.max_lease_duration)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Have Celery's record of the failure carry what becomes of the message."""
        del exc, task_id, args, kwargs
        mark(einfo, getattr(self.request, "settlement", None))

    def retry(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: Celery's retry publishes again, to every subscriber of the topic.

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
        named = {"task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        self._refuse({**options, **named})
        del producer  # Celery's
        data, attributes, ordering_key = _call_arguments(self.name, args, kwargs)
        if self.app.conf.task_always_eager:
            return self.apply((data,), {"attributes": attributes})
        message_id = self.publisher.publish(self.definition, data, attributes, ordering_key)
        result = self.find_result(task_id_of(self.definition.subscription, message_id))
        result.is_published = True
        result.ignored = True  # as Celery's own: what is not stored can't be waited for
        return result

    def find_result(self, task_id: str) -> HandlerResult:
        """Return what is known of a message by its task's id: ``state`` is its last outcome."""
        return HandlerResult(task_id, task=self, app=self.app)

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> HandlerSignature:
        """Return what can be called later; it can't be part of a chain, group or chord."""
        starkwargs.setdefault("app", self.app)
        return HandlerSignature(self, args, *starargs, **starkwargs)

    subtask = signature

    def AsyncResult(self, *_: Any, **__: Any) -> NoReturn:  # noqa: N802 - Celery's
        """Refuse: a handler has no result.

        Celery asks for it when it prepares a canvas in which a handler stands by its name, as
        ``celery.signature("T.M")``.

        Raises:
            PublishRefused: Always.
        """
        raise PublishRefused(_no_canvas(self.name))

    def _call_directly(self, *args: Any, **kwargs: Any) -> None:
        """Run on plain data, as ``handler_task(order)`` or an eager call does. Errors pass through.

        Raises:
            InvalidMessage: The data does not fit, or it came in Celery's own envelope.
        """
        if not (self.request.called_directly or self.request.is_eager):
            raise self._not_raw()
        data, attributes, ordering_key = _call_arguments(self.name, args, kwargs)
        facts = unknown_facts(str(uuid.uuid4()))
        facts["attributes"] = dict(attributes)
        facts["ordering_key"] = ordering_key
        facts["empty"] = data is None
        message = build_message(self.definition, b"" if data is None else encode_json(data), facts)
        options = self.definition.options
        deadline = RunDeadline(
            options.run_limit, lambda _: True, bound_seconds=options.max_lease_duration
        )
        run = run_handler(self.execution, message, facts, deadline)
        if self.definition.runs_on_loop:
            run_coroutine(self, drive_async(run, self.execution))
        else:
            drive_sync(run, self.execution)

    def _not_raw(self) -> InvalidMessage:
        return InvalidMessage(
            f"{self.name} is a handler: it takes raw messages of topic "
            f"{self.definition.topic}, not Celery's task messages"
        )

    def _refuse(self, options: Mapping[str, Any]) -> None:
        # What changes nothing may be given: `celery call` names the serializer, beat marks its
        # tasks.
        meant = {
            "queue": self.name,
            "routing_key": self.name,
            "serializer": "json",
            "headers": {"celery_beat_task": True},
        }
        for option, reason in _REFUSED.items():
            value = options.get(option)
            if value and value != meant.get(option):
                raise PublishRefused(f"{self.name} can't be called with {option}=: {reason}.")


def _no_canvas(handler: str | None) -> str:
    return (
        f"{handler} is a handler and can't be part of a chain, group or chord: its message carries "
        "no callbacks and it has no result. Publish from a task, or use a workflow."
    )


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
