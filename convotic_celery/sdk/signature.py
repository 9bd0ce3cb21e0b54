"""Reads a handler's signature: how it is called and its payload type. Pure inspection."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from convotic_celery.errors import HandlerSignatureError
from convotic_celery.sdk.message import WorkerMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "BATCH",
    "WORKER",
    "HandlerKind",
    "HandlerSignature",
    "inspect_handler",
    "inspect_step",
]

#: Context class names by kind of handler. By name: the sdk does not import the context.
_CONTEXT_OF = {True: "ConvoticContext", False: "SyncConvoticContext"}


@dataclass(frozen=True, slots=True)
class HandlerKind:
    """What a handler must look like: its first parameter, and how it reads the payload."""

    takes: type
    #: ``message``
    first: str
    #: ``message.data``
    reads: str
    #: ``handler``
    called: str = "handler"
    #: Whether there may be parameters after the context, which FastAPI fills for a route.
    takes_more: bool = False
    #: Whether the first parameter is a list of these.
    takes_list: bool = False


WORKER = HandlerKind(takes=WorkerMessage, first="message", reads="message.data")
#: With the option batch.
BATCH = HandlerKind(
    takes=WorkerMessage, first="messages", reads="message.data of each", takes_list=True
)
_LISTS = (list, Sequence)
_STEP = HandlerKind(takes=object, first="run", reads="run.input", called="step")


@dataclass(frozen=True, slots=True)
class HandlerSignature:
    """What registration learns from a handler."""

    is_async: bool
    #: The type in ``WorkerMessage[...]``: any type that pydantic can validate. None: any JSON.
    payload_type: Any
    #: ``path/to/file.py:12``.
    source: str
    #: The return annotation; None: missing, or can't be evaluated.
    return_type: Any = None
    #: Parameters after the context, with annotations evaluated; keyword-only. See HandlerKind.
    extra: Mapping[str, inspect.Parameter] = field(default_factory=dict)


def inspect_handler(handler: Callable[..., object], kind: HandlerKind = WORKER) -> HandlerSignature:
    """Return the parts of the signature.

    Raises HandlerSignatureError, naming file and line, unless ``handler`` is a ``def`` or
    ``async def`` (or a partial, a bound method, an object with ``__call__``) that can be called as
    ``handler(message, ctx)`` (or ``handler(request, ctx)``, as its kind says).
    """
    function = _function_of(handler)
    source = _source_of(function)
    where = f"{source}: handler {_name_of(handler)}"
    _check_function(handler, function, where)
    is_async = inspect.iscoroutinefunction(function)
    message, context, more = _bind(handler, where, kind)
    _check_context(_annotation(context, function, kind), is_async=is_async, where=where)
    payload_type = _payload_type(_annotation(message, function, kind), where, kind)
    returned = _return_annotation(handler, function, kind)
    extra = {p.name: _extra_parameter(p, function, kind, where) for p in more}
    return HandlerSignature(is_async, payload_type, source, returned, extra)


def inspect_step(step: Callable[..., object], workflow: str) -> str:
    """Return where a workflow's step is defined.

    Raises HandlerSignatureError unless it can be called as ``step(run, ctx)``, with the context of
    its kind.
    """
    function = _function_of(step)
    source = _source_of(function)
    where = f"{source}: {workflow}, step {_name_of(step)}"
    _check_function(step, function, where)
    run, context, _ = _bind(step, where, _STEP)
    given = _annotation(run, function, WORKER)
    if WorkerMessage in (given, get_origin(given)):
        raise HandlerSignatureError(
            f"{where} takes a message, but a step is called as step(run, ctx) with a WorkflowRun: "
            "run.input, run.results."
        )
    is_async = inspect.iscoroutinefunction(function)
    _check_context(_annotation(context, function, WORKER), is_async=is_async, where=where)
    return source


def _check_function(handler: object, function: Any, where: str) -> None:
    if hasattr(handler, "apply_async"):
        raise HandlerSignatureError(
            f"{where} is a Celery task, but a handler is a function: register that, and call it "
            "in the task."
        )
    if not callable(handler) or isinstance(handler, type):
        raise HandlerSignatureError(f"{where} is not a function but {type(handler).__name__}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerSignatureError(
            f"{where} is a generator, so its body would never run: remove the yield."
        )


def _function_of(handler: object) -> Any:
    """Return the function inside partials, bound methods and callable objects."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler) or isinstance(handler, type):
        return handler
    return getattr(handler, "__call__", handler)  # noqa: B004 - the bound method itself is wanted


def _source_of(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return getattr(function, "__module__", None) or "<unknown>"
    return f"{code.co_filename}:{code.co_firstlineno}"


def _name_of(handler: object) -> str:
    name: str | None = getattr(handler, "__qualname__", None)
    return f"{name}()" if name else repr(handler)


def _bind(
    handler: Callable[..., object], where: str, kind: HandlerKind
) -> tuple[inspect.Parameter | None, inspect.Parameter | None, list[inspect.Parameter]]:
    """Return the parameters for message and context (None behind ``*args``), and the others."""
    try:
        signature = inspect.signature(handler)
    except ValueError as error:
        raise HandlerSignatureError(f"{where} has no signature to check: {error}.") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p for p in signature.parameters.values() if p.kind in positional]
    keyword = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    more = [*named[2:], *keyword] if kind.takes_more else []
    try:
        kept = [p for p in signature.parameters.values() if p not in more]
        signature.replace(parameters=kept).bind(None, None)
    except TypeError as error:
        raise HandlerSignatureError(
            f"{where} can't be called as {kind.called}({kind.first}, ctx): its parameters are "
            f"{signature}; {error}."
        ) from None
    message, context = [*named, None, None][:2]
    return message, context, more


@dataclass(frozen=True, slots=True)
class _Unresolved:
    """An annotation that can't be evaluated here, e.g. a name imported under TYPE_CHECKING."""

    text: str
    reason: str


def _annotation(parameter: inspect.Parameter | None, function: Any, kind: HandlerKind) -> Any:
    """Return the annotation, evaluated if it is a string; None without one."""
    if parameter is None or parameter.annotation is inspect.Parameter.empty:
        return None
    return _evaluate(parameter.annotation, function, kind)


def _extra_parameter(
    parameter: inspect.Parameter, function: Any, kind: HandlerKind, where: str
) -> inspect.Parameter:
    annotation = _annotation(parameter, function, kind)
    if isinstance(annotation, _Unresolved):
        raise HandlerSignatureError(
            f"{where}: the annotation {annotation.text!r} of {parameter.name} can't be evaluated "
            f"({annotation.reason}). Import it at module level, not under TYPE_CHECKING."
        )
    wanted = parameter.empty if annotation is None else annotation
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=wanted)


def _return_annotation(handler: Callable[..., object], function: Any, kind: HandlerKind) -> Any:
    annotation = inspect.signature(handler).return_annotation
    if annotation is inspect.Signature.empty:
        return None
    found = _evaluate(annotation, function, kind)
    return None if isinstance(found, _Unresolved) or found is type(None) else found


def _evaluate(annotation: Any, function: Any, kind: HandlerKind) -> Any:
    # get_type_hints also resolves quoted names inside, as in WorkerMessage["Order"].
    annotated = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(annotated, *_scope_of(function, kind), include_extras=True)["it"]
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        return _Unresolved(_text_of(annotation), str(error))


def _text_of(annotation: object) -> str:
    return annotation.strip("'\"") if isinstance(annotation, str) else repr(annotation)


def _scope_of(function: Any, kind: HandlerKind) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the names for annotations; ``WorkerMessage`` may be imported for typing only."""
    owner = inspect.unwrap(function)
    owner = getattr(owner, "__func__", owner)
    enclosed: dict[str, Any] = {}
    for name, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell: assigned after the decorator ran
            enclosed[name] = cell.cell_contents
    return {kind.takes.__name__: kind.takes} | owner.__globals__, enclosed


def _payload_type(annotation: Any, where: str, kind: HandlerKind) -> Any:
    if kind.takes_list and not isinstance(annotation, _Unresolved):
        annotation = _item_of(annotation, where, kind)
    if annotation in (None, Any, object, kind.takes):
        return None
    if isinstance(annotation, _Unresolved):
        raise HandlerSignatureError(
            f"{where}: the annotation {annotation.text!r} can't be evaluated "
            f"({annotation.reason}). Import or define the payload type at module level, not under "
            f"TYPE_CHECKING: it is needed to validate {kind.first}s."
        )
    if get_origin(annotation) is not kind.takes:
        is_list = kind is WORKER and get_origin(annotation) in _LISTS
        hint = " To take many messages at once, set the option batch." if is_list else ""
        wanted = f"{kind.takes.__name__}[...]"
        raise HandlerSignatureError(
            f"{where}: the first parameter is the {kind.first}, but is annotated {annotation!r}. "
            f"Annotate it {f'list[{wanted}]' if kind.takes_list else wanted} and read "
            f"{kind.reads}.{hint}"
        )
    (payload_type,) = get_args(annotation)
    return None if payload_type is Any or isinstance(payload_type, TypeVar) else payload_type


def _item_of(annotation: Any, where: str, kind: HandlerKind) -> Any:
    """Return the annotation of a list's items."""
    if annotation in (None, Any, object, *_LISTS):
        return None
    if get_origin(annotation) not in _LISTS:
        raise HandlerSignatureError(
            f"{where}: with the option batch the first parameter is a list of messages, but is "
            f"annotated {annotation!r}. Annotate it list[{kind.takes.__name__}[...]]."
        )
    return get_args(annotation)[0]


def _check_context(annotation: Any, *, is_async: bool, where: str) -> None:
    """Refuse the other kind's context: its calls would not be awaited, or not be awaitable."""
    is_text = isinstance(annotation, _Unresolved)
    name = annotation.text if is_text else getattr(annotation, "__name__", "")
    if name.rpartition(".")[2] == _CONTEXT_OF[not is_async]:
        kind = "an async handler" if is_async else "a plain def handler"
        raise HandlerSignatureError(
            f"{where} is {kind}: its context must be a {_CONTEXT_OF[is_async]}."
        )
