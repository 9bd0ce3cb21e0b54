"""How handlers are registered: :class:`ConvoticModule`, and the :class:`Sdk` its function is given.

::

    module = ConvoticModule(name="order-processor", version="1.0.0")

    @module.worker("custom.orders.new", max_retries=3, ack_deadline=60, concurrency=10)
    async def process_order(message: WorkerMessage[Order], ctx: ConvoticContext) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Unpack

from pydantic import ValidationError

from convotic_celery.errors import DuplicateHandler, ModuleError
from convotic_celery.sdk.handler import HandlerDefinition, define_handler
from convotic_celery.sdk.message import WorkerMessage
from convotic_celery.sdk.names import check_module_name
from convotic_celery.sdk.options import WorkerOptions, WorkerOptionsDict

__all__ = ["ConvoticModule", "Sdk"]

HandlerT = TypeVar("HandlerT", bound=Callable[[WorkerMessage[Any], Any], object])


class Sdk:
    """What a module registers its handlers with; given to its ``register`` function.

    Not thread-safe. Every registration is checked at once: names, options, signature.
    """

    def __init__(self, module: str, version: str) -> None:
        self._module = module
        self._version = version
        self._handlers: dict[str, HandlerDefinition] = {}

    @property
    def handlers(self) -> tuple[HandlerDefinition, ...]:
        """What has been registered, in order."""
        return tuple(self._handlers.values())

    def register_worker_handler(
        self,
        *,
        topic: str,
        handler: Callable[[WorkerMessage[Any], Any], object],
        options: WorkerOptions | Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> HandlerDefinition:
        """Have ``handler`` called with each message of ``topic``.

        Args:
            topic: Short name of the Pub/Sub topic.
            handler: ``async def`` or ``def``, called as ``handler(message, ctx)``; what it returns
                is ignored, what it raises has the message delivered again.
            options: Also a mapping, with snake_case or camelCase names.
            name: Needed for a module's second handler of one topic; part of its queue's name.

        Raises HandlerSignatureError, DuplicateHandler, or ModuleError that says the rule.

        """
        definition = define_handler(
            handler,
            module=self._module,
            module_version=self._version,
            topic=topic,
            name=name,
            options=_parse_options(topic, options),
        )
        self._add(definition)
        return definition

    def _add(self, definition: HandlerDefinition) -> None:
        other = self._handlers.get(definition.queue)
        if other is not None:
            raise DuplicateHandler(
                f"{definition.source}: module {self._module!r} already has a handler for "
                f"{definition.topic!r}, at {other.source}. Give this one a name: name='...'."
            )
        self._handlers[definition.queue] = definition


class ConvoticModule:
    """A named, versioned set of handlers, found by the worker at start.

    Args:
        name: A letter, then letters, digits, ``_`` and ``-``; part of queue and subscription names,
            so renaming a module makes new subscriptions.
        version: Shown in logs and listings.
        register: Called with an :class:`Sdk` when the module is loaded; beside or instead of the
            decorator :meth:`worker`.

    """

    def __init__(
        self, name: str, version: str, register: Callable[[Sdk], None] | None = None
    ) -> None:
        self.name = check_module_name(name)
        self.version = version
        self._register = register
        self._decorated = Sdk(name, version)

    def __repr__(self) -> str:
        return f"ConvoticModule(name={self.name!r}, version={self.version!r})"

    def worker(
        self, topic: str, *, name: str | None = None, **options: Unpack[WorkerOptionsDict]
    ) -> Callable[[HandlerT], HandlerT]:
        """Return a decorator that registers a handler for ``topic`` and leaves it as it is.

        Takes the options of :class:`WorkerOptions` as keyword arguments; raises as
        :meth:`Sdk.register_worker_handler` does.
        """

        def register(handler: HandlerT) -> HandlerT:
            self._decorated.register_worker_handler(
                topic=topic, options=options, handler=handler, name=name
            )
            return handler

        return register

    def collect_handlers(self) -> tuple[HandlerDefinition, ...]:
        """Return all handlers: the decorated ones, and those ``register`` adds.

        Calls ``register`` anew each time and keeps nothing of it; what that raises passes through.
        """
        sdk = Sdk(self.name, self.version)
        for definition in self._decorated.handlers:
            sdk._add(definition)
        if self._register is not None:
            self._register(sdk)
        return sdk.handlers


def _parse_options(topic: str, options: object) -> WorkerOptions:
    if options is None:
        return WorkerOptions()
    if isinstance(options, WorkerOptions):
        return options
    try:
        return WorkerOptions.model_validate(options)
    except ValidationError as error:
        raise ModuleError(
            f"options of the handler for {topic!r}: {describe_options(error)}"
        ) from None


def describe_options(error: ValidationError) -> str:
    """Return one line that names each option at fault and its rule."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    texts = []
    for problem in problems:
        if problem["type"] == "default_factory_not_called":
            continue  # only says that another option, reported on its own, is wrong
        text = problem["msg"].removeprefix("Value error, ")
        location = ".".join(map(str, problem["loc"]))
        texts.append(f"{location}: {text}" if location else text)
    return "; ".join(texts)
