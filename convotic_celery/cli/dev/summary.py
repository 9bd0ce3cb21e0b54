"""What ``convotic dev`` says once everything runs: links, handlers, what to type. Pure."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convotic_celery.cli.columns import align

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["list_handlers", "list_links"]


def list_handlers(handlers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each handler, or what to do where there is none."""
    if not handlers:
        return ["no handlers yet: `convotic new NAME` writes a module with one"]
    rows = [(each["topic"], each["queue"], _shorten(each["source"])) for each in handlers]
    return align(("topic", "handler", "defined at"), rows).splitlines()


def list_links(
    facts: Mapping[str, Any],
    *,
    routes: str | None,
    dashboard: str,
    emulator: Mapping[str, Any] | None,
    debug_port: int | None,
) -> list[str]:
    """Return what can be clicked or typed now."""
    links = [("dashboard", f"{dashboard}/")]
    if routes is not None:
        links.append(("routes", f"{routes}/docs"))
    links += [("schedule", f"{key}: {when}") for key, when, _ in facts["schedules"]]
    if emulator is not None:
        links.append(("emulator", f"PUBSUB_EMULATOR_HOST={emulator['address']}"))
    if debug_port is not None:
        links.append(("debugger", _describe_debugger(debug_port)))
    if facts["handlers"]:
        first = facts["handlers"][0]
        example = shlex.quote(first["example"])
        links.append(("try it", f"convotic publish {first['topic']} {example}"))
    width = max((len(name) for name, _ in links), default=0)
    return [f"{name:<{width}}  {text}" for name, text in links]


def _describe_debugger(port: int) -> str:
    if importlib.util.find_spec("debugpy") is None:
        return "breakpoint() stops here; for VS Code: python -m pip install debugpy"
    return f"breakpoint() stops here; VS Code attaches to 127.0.0.1:{port}"


def _shorten(source: str) -> str:
    return source.removeprefix(f"{Path.cwd()}/")
