"""What Flower's templates, and ours, show of dead letters."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tornado.escape import xhtml_escape

from convotic_celery.dead_letters import Match

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILTERS", "entry_of_task", "match_of", "may_act", "replay_form", "shows_payloads"]

#: The query's names, which are fields of :class:`Match`.
FILTERS = ("handler", "reason", "error", "group", "text", "state")


def may_act(handler: Any) -> str:
    """Return why nothing can be changed here, "" if it can; the rule of Flower's own buttons."""
    options = handler.application.options
    if options.read_only:
        return "Flower is in read-only mode"
    is_open = os.environ.get("FLOWER_UNAUTHENTICATED_API", "").lower() in {"1", "true", "yes"}
    if not (options.basic_auth or options.auth or is_open):
        return "set up Flower's authentication, or FLOWER_UNAUTHENTICATED_API=true"
    return ""


def shows_payloads(handler: Any) -> bool:
    """Whether data and attributes may be shown."""
    return bool(handler.capp.settings.show_payloads)


def match_of(given: Mapping[str, str]) -> Match:
    """Return what a query or a form chooses: filters, ``attribute`` and ``payload``, ``ids``.

    Raises:
        ValueError: Text that is no NAME=VALUE; it says which.
    """
    fields: dict[str, Any] = {name: given[name] for name in FILTERS if given.get(name)}
    for name, field in (("attribute", "attributes"), ("payload", "payload")):
        if text := given.get(name):
            key, separator, value = text.partition("=")
            if not separator:
                raise ValueError(f"{name}: {text!r} is not NAME=VALUE")
            fields[field] = {key.strip(): value.strip()}
    if ids := given.get("ids"):
        fields["ids"] = tuple(ids.split())
    return Match(**fields)


def entry_of_task(task: Any) -> str:
    """Return the id of the entry that a task's message has, if it is a dead letter."""
    return str(getattr(task, "root_id", None) or task.uuid).replace("-", "")[:16]


def replay_form(handler: Any, task: Any) -> str:
    """Return the button *Replay* of a handler's failed task; "" where there is none."""
    definitions = getattr(handler.capp, "definitions", ())
    is_handler = any(definition.queue == task.name for definition in definitions)
    if task.state != "FAILURE" or not is_handler or may_act(handler):
        return ""
    entry = entry_of_task(task)
    show = xhtml_escape(handler.reverse_url("dead-letter", entry))
    act = xhtml_escape(handler.reverse_url("dead-letters-act", "replay"))
    return (
        f'<form method="post" action="{act}" class="d-inline">{handler.xsrf_form_html()}'
        f'<input type="hidden" name="ids" value="{entry}">'
        '<button class="btn btn-primary" id="task-replay">Replay</button></form> '
        f'<a class="btn btn-outline-secondary" href="{show}">Dead letter</a>'
    )
