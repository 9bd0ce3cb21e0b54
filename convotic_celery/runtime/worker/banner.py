"""What a worker says at its start: what it consumes, and where everything is."""

from __future__ import annotations

import platform
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["Banner", "describe_modules", "describe_start", "handler_table", "list_tasks"]

_COLUMNS = ("handler", "concurrency", "retries", "ack deadline", "dead-letter topic")
#: Not the author's tasks: Celery's, and the framework's.
_BUILT_IN = ("celery.", "convotic.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The facts of a start, as text for people and as fields of a log record."""

    hostname: str
    broker: str
    store: str
    pool: str
    concurrency: int
    #: The embedded servers' folder; "": none is used.
    data_folder: str = ""
    #: Addresses of pages.
    pages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    #: Names of the user's ordinary tasks, with their queue.
    tasks: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    table: str = field(default="", repr=False)

    def as_text(self) -> str:
        """Return the banner."""
        versions = f"convotic_celery {version('convotic_celery')}, Celery {version('celery')}"
        rows = [
            ("broker", [self.broker]),
            ("store", [self.store]),
            ("data", [self.data_folder]),
            ("pool", [f"{self.pool}, {self.concurrency} messages at a time"]),
            ("modules", list(self.modules)),
            ("pages", list(self.pages)),
            ("tasks", list(self.tasks)),
        ]
        lines = [f"{self.hostname}  ({versions}, Python {platform.python_version()})", ""]
        for name, values in rows:
            shown = [value for value in values if value]
            lines += [
                f"  {label:8} {value}"
                for label, value in zip([name, *[""] * 99], shown, strict=False)
            ]
        return "\n".join([*lines, "", self.table])

    def as_fields(self) -> dict[str, Any]:
        """Return what of it is worth a field."""
        names = ("broker", "store", "data_folder", "pool", "concurrency", "modules", "handlers")
        return {name: value for name in names if (value := getattr(self, name))}


def describe_start(worker: Any) -> Banner:
    """Return the banner of a worker. Starts the embedded servers, so that it can say where."""
    app = worker.app
    servers = app.describe_servers()
    consumed = app.amqp.queues.consume_from
    broker = app.connection().as_uri()
    pool = worker.pool_cls.__module__.rpartition(".")[2]
    return Banner(
        hostname=str(worker.hostname),
        broker=f"{broker} ({servers.broker})" if servers.broker else broker,
        store=servers.store or app.backend.as_uri(),
        data_folder=servers.data_folder,
        pages=servers.pages,
        pool="asyncio" if pool == "pool" else pool,
        concurrency=worker.concurrency,
        modules=describe_modules((*app.definitions, *app.routes)),
        tasks=list_tasks(app.tasks, app.definitions) if "celery" in consumed else (),
        handlers=tuple(d.queue for d in app.definitions if d.queue in consumed),
        table=handler_table(app.definitions, consumed),
    )


def describe_modules(definitions: Iterable[Any]) -> tuple[str, ...]:
    """Return the modules of handlers and routes, each with its version and first file."""
    found: dict[str, str] = {}
    for each in definitions:
        file = str(each.source).rpartition(":")[0]
        found.setdefault(each.module, f"{each.module} {each.module_version}  {file}".strip())
    return tuple(found.values())


def list_tasks(names: Iterable[str], definitions: Iterable[HandlerDefinition]) -> tuple[str, ...]:
    """Return the names of the user's ordinary tasks, sorted."""
    handlers = {definition.queue for definition in definitions}
    return tuple(
        sorted(name for name in names if name not in handlers and not name.startswith(_BUILT_IN))
    )


def handler_table(
    definitions: Iterable[HandlerDefinition], selected: Container[str] | None = None
) -> str:
    """Return a table of plain text, one handler a line, with a heading.

    With ``selected`` only the handlers whose queue it contains.
    """
    definitions = list(definitions)
    if not definitions:
        return (
            "  no handlers: no module with a handler was found (CONVOTIC_MODULES, the folder "
            "modules/, or an installed package with a 'convotic.modules' entry point)\n"
        )
    rows = [_row(each) for each in definitions if selected is None or each.queue in selected]
    if not rows:
        return "  no handlers: no handler's queue is consumed (-Q, -X, convotic pause)\n"
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    return "\n".join([*(_line(row, widths) for row in (_COLUMNS, *rows)), ""])


def _row(definition: HandlerDefinition) -> tuple[str, ...]:
    options = definition.options
    return (
        definition.queue,
        f"{options.concurrency}{'' if definition.is_async else ' (def)'}",
        str(options.max_retries),
        f"{options.ack_deadline:g} s",
        definition.dead_letter_topic,
    )


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  " + "  ".join(map(str.ljust, cells, widths)).rstrip()
