"""Which formatter and handler a stream gets, by the settings."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

from convotic_celery.log.cloud import CloudFormatter
from convotic_celery.log.text import TextFormatter

if TYPE_CHECKING:
    from convotic_celery.settings import Settings

__all__ = ["build_formatter", "configure_logging", "is_for_people"]


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send the root logger's records to ``stream`` (default: stderr), formatted by the settings.

    Replaces the root logger's handlers. For programs whose logging Celery does not configure.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(build_formatter(settings, stream))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)


def is_for_people(settings: Settings, stream: TextIO | None) -> bool:
    """Say whether the stream's lines are text; ``auto`` is text on a terminal."""
    if settings.log_format == "auto":
        return _is_terminal(stream)
    return settings.log_format != "json"


def build_formatter(
    settings: Settings,
    stream: TextIO | None,
    *,
    colours: bool | None = None,
    process: str = "",
    level: int | None = None,
) -> logging.Formatter:
    """Return the formatter of a stream's records.

    Args:
        settings: Its format, and the project.
        stream: Where the lines go.
        colours: None: on a terminal, unless NO_COLOR is set, or wherever FORCE_COLOR is.
        process: What to call this process on each line; "": nothing.
        level: With DEBUG, tracebacks are whole. None: the setting's.
    """
    whole = (logging.getLevelName(settings.log_level) if level is None else level) <= logging.DEBUG
    if is_for_people(settings, stream):
        if colours is None:
            colours = bool(settings.force_color) or _is_terminal(stream)
        colours = colours and not settings.no_color
        return TextFormatter(colours=colours, process=process, whole_tracebacks=whole)
    project = (settings.broker_url or "").partition("://")[2].partition("/")[0].partition("?")[0]
    return CloudFormatter(project=project, process=process, whole_tracebacks=whole)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()
