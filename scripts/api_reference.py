"""The page of the public API, made from signatures and docstrings; mkdocs_hooks.py adds it.

Usage: ``python scripts/api_reference.py`` prints it.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

__all__ = ["api_page"]

_HEAD = """# Public API

What modules and programs import, with signatures and docstrings as they are in the code.
Everything else may change without notice. `ctx` and its services have an async form, shown here,
and a plain one with the same methods (`SyncConvoticContext`).

"""

#: Chapters: where the names are imported from, and which. Everything of ``__all__`` if none.
_CHAPTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Modules and handlers",
        "convotic_celery",
        (
            "ConvoticModule",
            "Sdk",
            "WorkerOptions",
            "WorkerMessage",
            "CloudEvent",
            "WorkerMiddleware",
            "DeadLettered",
        ),
    ),
    (
        "What a handler raises",
        "convotic_celery",
        (
            "Retry",
            "DeadLetter",
            "Drop",
            "BatchFailed",
            "BatchOptions",
            "ConstantBackoff",
            "ExponentialBackoff",
        ),
    ),
    (
        "The context and its services",
        "convotic_celery.context",
        (
            "ConvoticContext",
            "AsyncContactService",
            "AsyncConversationService",
            "AsyncMessageService",
            "AsyncPubsub",
            "AsyncStorageService",
            "AsyncWorkflowService",
            "HandlerLogger",
            "Contact",
            "Conversation",
            "Message",
            "StorageItem",
            "WorkflowRun",
            "Page",
        ),
    ),
    (
        "Routes",
        "convotic_celery",
        ("RouteRequest", "RouteResponse", "Problem", "RouteMiddleware"),
    ),
    ("Publishing from anywhere", "convotic_celery.pubsub", ()),
    ("Dead letters", "convotic_celery.dead_letters", ()),
    ("Applications", "convotic_celery", ("create_app", "Settings", "Services")),
    ("Routes as an ASGI application", "convotic_celery.routes", ("create_asgi_app",)),
    ("The dashboard as an ASGI application", "convotic_celery.dashboard", ()),
    ("Tests", "convotic_celery.testing", ()),
    (
        "Errors",
        "convotic_celery",
        (
            "ConvoticError",
            "ConfigurationError",
            "PublishRefused",
            "PublishNotConfirmed",
            "PublishManyFailed",
            "StoreUnavailable",
            "InvalidField",
            "InvalidMessage",
            "ContactExists",
            "ContactNotFound",
            "ConversationNotFound",
            "WorkflowRunNotFound",
            "StorageValueTooLarge",
            "ServiceNotProvided",
            "AckDeadlineExceeded",
            "DeadlineNotExtendable",
            "HandlerNotLoaded",
        ),
    ),
)
#: Those have pages of their own, or say nothing that their class does not.
_WITHOUT_MEMBERS = frozenset({"Settings", "Problem"})
_ROLE = re.compile(r":(?:meth|class|func|data|attr|mod|exc):`[~.]?([^`<]+)`")
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^ {4}(\S[^:]*): (.*)$")
_LINE = 96
#: What stands before a type's name and says nothing to a reader.
_MODULES = re.compile(
    r"\b(?:convotic_\w+|typing|collections\.abc|datetime|pydantic)(?:\.\w+)*\.(?=\w)"
)


def api_page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, module, names in _CHAPTERS:
        home = importlib.import_module(module)
        parts.append(f"## {title}\n\n`from {module} import …`\n")
        for name in names or home.__all__:
            value = getattr(home, name)
            if not inspect.isclass(value) and not callable(value):
                continue
            parts.extend(_class(name, value) if inspect.isclass(value) else _function(name, value))
    return "\n".join(parts) + "\n"


def _class(name: str, kind: type[Any]) -> Iterator[str]:
    own_init = "__init__" in vars(kind) and not issubclass(kind, BaseException | BaseModel)
    head = _signature(name, kind) if own_init and name not in _WITHOUT_MEMBERS else f"class {name}"
    yield f"### {name}\n\n{_described(head, kind)}"
    if name in _WITHOUT_MEMBERS:
        return
    fields = list(_fields(kind))
    if fields:
        yield "| | | |\n|---|---|---|"
        for field, annotation, text in fields:
            yield f"| `{field}` | `{_cell(annotation)}` | {_cell(text)} |"
        yield ""
    for member, value in _members(kind):
        if isinstance(value, property):
            returned = inspect.signature(value.fget).return_annotation if value.fget else ""
            yield _described(f"{member}: {_show(returned)}", value)
        else:
            function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            yield _described(_signature(member, function), function)


def _function(name: str, function: Any) -> Iterator[str]:
    yield f"### {name}\n\n{_described(_signature(name, function), function)}"


def _described(code: str, subject: Any) -> str:
    return f"```python\n{code}\n```\n\n{_text(inspect.getdoc(subject))}\n"


def _members(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield methods and properties with a docstring, of the class and its bases of ours."""
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("convotic_"):
            continue
        for name, value in vars(base).items():
            function = getattr(value, "__func__", value)
            if name.startswith("_") or name in seen or not inspect.getdoc(function):
                continue
            if isinstance(value, property) or inspect.isfunction(function):
                seen.add(name)
                yield name, value


def _fields(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and text of a model's or dataclass's fields."""
    comments = _comments(kind)
    known: dict[str, Any] = getattr(kind, "model_fields", {})
    names = list(known)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    annotations: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        annotations |= vars(base).get("__annotations__", {})
    for name in names:
        if not name.startswith("_"):
            described = getattr(known.get(name), "description", None)
            yield name, _show(annotations.get(name, "")), described or comments.get(name, "")


def _comments(kind: type[Any]) -> dict[str, str]:
    """Return the comments ``#:`` above the fields, by field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("convotic_"):
            continue
        lines: list[str] = []
        for line in inspect.getsource(base).splitlines():
            text = line.strip()
            field = re.match(r"(\w+): ", text)
            if text.startswith("#:"):
                lines.append(text.removeprefix("#:").strip())
            else:
                if field and lines:
                    found[field[1]] = " ".join(lines)
                lines = []
    return found


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in {"self", "cls"}]
    shown = signature.replace(
        parameters=[p.replace(annotation=_plain(p.annotation)) for p in parameters],
        return_annotation=_plain(signature.return_annotation),
    )
    prefix = "async def " if inspect.iscoroutinefunction(function) else ""
    prefix = prefix or ("class " if inspect.isclass(function) else "def ")
    text = f"{prefix}{name}{shown}".replace("'", "")
    if len(text) <= _LINE:
        return text
    inner = ",\n    ".join(_split(text[text.index("(") + 1 : text.rindex(")")]))
    return f"{text[: text.index('(')]}(\n    {inner},\n{text[text.rindex(')') :]}"


def _split(parameters: str) -> list[str]:
    """Return what commas part, but not those within brackets."""
    found, depth, last = [], 0, 0
    for place, letter in enumerate(parameters):
        depth += letter in "[(" or -(letter in "])")
        if letter == "," and not depth:
            found.append(parameters[last:place].strip())
            last = place + 1
    return [*found, parameters[last:].strip()]


class _Written:
    """An annotation as it was written, for ``inspect`` to print."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _plain(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    return _Written(_show(annotation))


def _show(annotation: Any) -> str:
    if annotation in (inspect.Parameter.empty, inspect.Signature.empty):
        return ""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _show(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return " | ".join(map(_show, get_args(annotation)))
    if annotation is type(None):
        return "None"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"^Annotated\[(\w+), .*\]$", r"\1", _MODULES.sub("", text))
    return text.strip("'\"")


def _text(docstring: str | None) -> str:
    """Return a docstring as Markdown: roles as code, sections as lists."""
    lines, section = [], ""
    for line in (docstring or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading[1]
            lines += [f"*{section}:*", ""]
            continue
        entry = _ENTRY.match(line) if section else None
        if entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section and line.startswith("     "):
            lines[-1] += f" {line.strip()}"
        else:
            if line and not line.startswith(" "):
                section = ""
            lines.append(line if not section else line.strip())
    text = _ROLE.sub(r"`\1`", "\n".join(lines))
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r"::$", ":", text, flags=re.MULTILINE))


def _cell(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(r"`\1`", text)).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(api_page())
