"""What ``convotic pause`` and ``convotic resume`` share: commands to all workers, and answers."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Literal

import click

from convotic_celery.cli.columns import align

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convotic_celery.app import ConvoticApp
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["find_handler", "notify_workers"]


def find_handler(definitions: Iterable[HandlerDefinition], name: str) -> HandlerDefinition:
    """Return the handler of a queue; a topic will do where it has one handler.

    Raises:
        BadParameter: There is none; the text has names that are near.
    """
    definitions = list(definitions)
    found = [d for d in definitions if d.queue == name] or [
        d for d in definitions if d.topic == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(d.queue for d in found)
        raise click.BadParameter(f"{name!r} has several: {names}", param_hint="HANDLER")
    near = difflib.get_close_matches(name, [d.queue for d in definitions], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`convotic handlers` lists them."
    raise click.BadParameter(f"there is no handler {name!r}; {hint}", param_hint="HANDLER")


def notify_workers(
    app: ConvoticApp,
    handler: HandlerDefinition,
    command: Literal["pause_handler", "resume_handler"],
    *,
    timeout: float,
    as_json: bool,
) -> int:
    """Send a command to all workers, wait ``timeout`` seconds, print the answers; the exit code."""
    from convotic_celery.runtime.worker.pauses import NOT_CONSUMED

    replies = app.control.broadcast(
        command, arguments={"queue": handler.queue}, reply=True, timeout=timeout
    )
    answers = {
        node: str(answer.get("ok") or answer.get("error"))
        for reply in replies or ()
        for node, answer in reply.items()
    }
    pausing = command == "pause_handler"
    if as_json:
        state = {"handler": handler.queue, "paused": pausing, "workers": answers}
        click.echo(json.dumps(state, indent=2))
    elif answers:
        click.echo(align(("worker", handler.queue), sorted(answers.items())))
    if any(answer != NOT_CONSUMED for answer in answers.values()):
        return 0
    click.echo(_explain(answers, handler.queue, timeout, pausing=pausing), err=True)
    return 1


def _explain(answers: Mapping[str, str], queue: str, timeout: float, *, pausing: bool) -> str:
    who = f"No worker consumes {queue}" if answers else f"No worker answered within {timeout:g} s"
    kept = "stays paused for workers that start later" if pausing else "is not paused any more"
    return f"{who}. It {kept}."
