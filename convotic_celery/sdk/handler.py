"""One registered handler: :class:`HandlerDefinition`, which becomes a Celery task."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from convotic_celery.errors import HandlerSignatureError, InvalidMessage, ModuleError
from convotic_celery.names import (
    build_filter,
    check_handler_name,
    check_resource_name,
    dead_letter_topic_of,
    queue_of,
)
from convotic_celery.sdk.compression import decompress, is_compressed, looks_compressed
from convotic_celery.sdk.event import read_event
from convotic_celery.sdk.message import decode_json, find_schema_problem, validate_json
from convotic_celery.sdk.middleware import (
    WorkerMiddleware,
    check_middleware,
    compose_async,
    compose_sync,
)
from convotic_celery.sdk.payload_type import LARGE_BYTES, PayloadType
from convotic_celery.sdk.selector import find_misfit
from convotic_celery.sdk.signature import BATCH, WORKER, inspect_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_celery.sdk.event import CloudEvent
    from convotic_celery.sdk.lifespan import Lifespan
    from convotic_celery.sdk.options import WorkerOptions

__all__ = ["HandlerDefinition", "define_handler"]


@dataclass(frozen=True)
class HandlerDefinition:
    """A handler of a module on a topic, with everything checked. Made by :func:`define_handler`."""

    module: str
    module_version: str
    topic: str
    #: The handler's one name: of the Celery queue and task, and of the subscription unless an
    #: option names another.
    queue: str
    subscription: str
    #: Dead-letter topic, and the subscription of the same name that keeps its messages.
    dead_letter_topic: str
    options: WorkerOptions
    handler: Callable[..., Any]
    is_async: bool
    #: The type in the annotation ``WorkerMessage[...]``; None: any JSON.
    payload_type: Any
    #: Where the handler is defined: ``path/to/file.py:12``.
    source: str
    #: The ``name=`` of its registration.
    name: str | None = None
    #: The deployment's middleware, then the module's, in order.
    middleware: tuple[WorkerMiddleware, ...] = ()
    #: The module's; ``ctx.resource(...)`` returns what it yields.
    lifespan: Lifespan | None = None

    @property
    def runs_on_loop(self) -> bool:
        """Whether its runs are coroutines: a batch waits for its messages, plain handlers too."""
        return self.is_async or self.options.batch is not None

    @cached_property
    def call(self) -> Callable[..., Any]:
        """The handler inside its middleware's hooks; the handler itself if there are none."""
        compose = compose_async if self.is_async else compose_sync
        return compose(self.handler, self.middleware)

    @cached_property
    def filter_expression(self) -> str:
        """The subscription's filter, at most 256 bytes: the user's and ours."""
        return build_filter(self.queue, self.options.filter)

    @cached_property
    def _payload(self) -> PayloadType:
        return PayloadType(self.payload_type)

    def takes_long(self, raw: bytes, attributes: Mapping[str, str]) -> bool:
        """Whether decoding the message would take too long on an event loop."""
        is_compressed_here = self.options.accept_gzip and is_compressed(attributes)
        return len(raw) > LARGE_BYTES or is_compressed_here

    def decode_data(self, raw: bytes) -> Any:
        """Return a message's data as the handler gets it: JSON, or the payload type.

        Empty data is None; a payload type must allow that. Raises InvalidMessage with a short
        reason without any of the data. Thread-safe.
        """
        if self.payload_type is None:
            return decode_json(raw)
        return validate_json(raw, self._payload)

    def decode(self, raw: bytes, attributes: Mapping[str, str]) -> tuple[Any, CloudEvent | None]:
        """Return a message's data as the handler gets it, and its CloudEvent if it is one.

        Raises InvalidMessage as ``decode_data`` does. Thread-safe.
        """
        if self.options.accept_gzip:
            raw = decompress(raw, attributes)
        event, raw = read_event(raw, attributes, self.options.cloud_events)
        try:
            return self.decode_data(raw), event
        except InvalidMessage:
            if looks_compressed(raw):
                raise InvalidMessage(
                    "data is compressed with gzip: set the option accept_gzip=True, and publish "
                    "with the attribute content-encoding=gzip"
                ) from None
            raise

    def with_options(self, options: WorkerOptions) -> HandlerDefinition:
        """Return this handler with other options; derives and checks names and filter again."""
        if (options.batch is None) is not (self.options.batch is None):
            raise ModuleError(
                f"{self.source}: whether a handler takes batches is decided where it is defined; "
                "settings can only change their max_size and max_wait."
            )
        changed = replace(
            self,
            options=options,
            subscription=options.subscription or self.queue,
            dead_letter_topic=options.dead_letter_topic or dead_letter_topic_of(self.queue),
        )
        changed.check()
        return changed

    def check(self) -> None:
        """Raise ModuleError if a name or the filter breaks a rule of Pub/Sub."""
        check_resource_name("topic", self.topic)
        check_resource_name("subscription", self.subscription)
        check_resource_name("dead-letter topic", self.dead_letter_topic)
        check_resource_name("queue", self.queue)
        len(self.filter_expression)
        if self.payload_type is not None:
            self._check_payload_type()
        check_middleware(self.middleware, is_async=self.is_async, where=self.source)
        self._check_options()

    def _check_options(self) -> None:
        if self.options.batch is not None and self.middleware and not self.is_async:
            raise ModuleError(
                f"{self.source} is a plain def handler with batch=, so it can't have middleware, "
                "whose hooks run on the event loop for each message: make it an async def."
            )
        for option in ("deduplicate", "concurrency_key"):
            selector = getattr(self.options, option)
            problem = selector and find_misfit(selector, self.payload_type)
            if problem:
                raise ModuleError(f"{self.source}: {option}={selector!r}: {problem}.")
        hook = self.options.on_dead_letter
        if hook is not None and not self.is_async and inspect.iscoroutinefunction(hook):
            raise ModuleError(
                f"{self.source} is a plain def handler: make its on_dead_letter a plain def too."
            )

    def _check_payload_type(self) -> None:
        problem = find_schema_problem(lambda: self._payload.adapter)
        if problem:
            raise HandlerSignatureError(
                f"{self.source}: messages can't be validated as {self.payload_type!r}: {problem}"
            )


def define_handler(
    handler: Callable[..., Any],
    *,
    module: str,
    module_version: str,
    topic: str,
    name: str | None,
    options: WorkerOptions,
) -> HandlerDefinition:
    """Return the checked definition.

    Raises HandlerSignatureError for a function that can't be a handler and ModuleError for a name
    or filter that Pub/Sub would refuse; both name the rule.
    """
    signature = inspect_handler(handler, WORKER if options.batch is None else BATCH)
    queue = queue_of(topic, module, name if name is None else check_handler_name(name))
    definition = HandlerDefinition(
        module=module,
        module_version=module_version,
        topic=topic,
        queue=queue,
        subscription=options.subscription or queue,
        dead_letter_topic=options.dead_letter_topic or dead_letter_topic_of(queue),
        options=options,
        handler=handler,
        is_async=signature.is_async,
        payload_type=signature.payload_type,
        source=signature.source,
        name=name,
    )
    definition.check()
    return definition
