"""What a worker says at its start: its handlers, their topics and options."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["handler_table"]

_COLUMNS = ("topic", "queue", "options", "dead-letter topic")


def handler_table(
    definitions: Iterable[HandlerDefinition], selected: Container[str] | None = None
) -> str:
    """Return a table of plain text, one handler a line, with a heading.

    With ``selected`` only the handlers whose queue it contains.
    """
    definitions = list(definitions)
    if not definitions:
        return (
            "[handlers]\n  none: no module with a handler was found (CONVOTIC_MODULES, the folder "
            "modules/, or an installed package with a 'convotic.modules' entry point)\n"
        )
    rows = [_row(each) for each in definitions if selected is None or each.queue in selected]
    if not rows:
        return "[handlers]\n  none: no handler's queue is consumed (-Q, -X, convotic pause)\n"
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = [_line(_COLUMNS, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(row, widths) for row in rows]
    return "\n".join(["[handlers]", *lines, ""])


def _row(definition: HandlerDefinition) -> tuple[str, ...]:
    options = definition.options
    text = (
        f"max_retries={options.max_retries} ack_deadline={options.ack_deadline:g} "
        f"concurrency={options.concurrency}{'' if definition.is_async else ' def'}"
    )
    return definition.topic, definition.queue, text, definition.dead_letter_topic


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  " + "  ".join(map(str.ljust, cells, widths)).rstrip()
