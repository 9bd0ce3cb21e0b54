"""Workflows: steps that run one after the other, each as a message of a handler of its own.

A workflow is a handler on the topic ``workflow.NAME``. A message names a run and a step::

    {"run_id": "0199...", "step": 1}

Its retries, deadline and dead letter are the step's; what the run has so far is in the store.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from convotic_celery.errors import ModuleError
from convotic_celery.sdk.message import WorkerMessage  # noqa: TC001 - read when it registers
from convotic_celery.sdk.names import check_handler_name
from convotic_celery.sdk.outcomes import DeadLetter

if TYPE_CHECKING:
    from convotic_celery.sdk.dead_lettered import DeadLettered

__all__ = ["StepMessage", "build_workflow", "workflow_topic"]

#: What the workflow itself needs of its handler.
_OWN_OPTIONS = ("concurrency_key", "concurrency_key_limit", "deduplicate", "on_dead_letter")


class StepMessage(BaseModel):
    """Which step of which run is to be done."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    step: int = Field(ge=0)


def workflow_topic(name: str) -> str:
    """Return the topic of the workflow's steps; raises ModuleError for a name that is none."""
    return f"workflow.{check_handler_name(name)}"


def build_workflow(
    name: str, steps: Sequence[Callable[..., Any]], options: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the handler that does a workflow's steps, and its options.

    Raises ModuleError for steps that can't be one workflow.
    """
    own = [option for option in _OWN_OPTIONS if option in options]
    if own:
        raise ModuleError(f"workflow {name!r}: {own[0]} is the workflow's own option.")
    names = [getattr(step, "__name__", "") for step in steps]
    if not steps or len(set(names)) != len(names):
        raise ModuleError(f"workflow {name!r}: steps are functions of different names: {names}.")
    kinds = {inspect.iscoroutinefunction(step) for step in steps}
    if len(kinds) > 1:
        raise ModuleError(f"workflow {name!r}: its steps are all async def, or all plain def.")
    is_async = kinds.pop()
    needed = {
        "concurrency_key": "data.run_id",
        "on_dead_letter": _fail if is_async else _fail_plainly,
    }
    build = _build_async if is_async else _build_plain
    return build(tuple(steps)), {**options, **needed}


def _build_async(steps: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    async def advance(message: WorkerMessage[StepMessage], ctx: Any) -> None:
        """Do a workflow's next step."""
        wanted = message.data
        run = await ctx.workflows.begin_step(wanted.run_id, wanted.step, resume=ctx.is_replay)
        if run is not None:
            step = _find(steps, run.step)
            result = await step(run, ctx)
            is_last = run.step + 1 == len(steps)
            await ctx.workflows.end_step(run, step.__name__, result, is_last=is_last)

    return advance


def _build_plain(steps: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    def advance(message: WorkerMessage[StepMessage], ctx: Any) -> None:
        """Do a workflow's next step."""
        wanted = message.data
        run = ctx.workflows.begin_step(wanted.run_id, wanted.step, resume=ctx.is_replay)
        if run is not None:
            step = _find(steps, run.step)
            result = step(run, ctx)
            is_last = run.step + 1 == len(steps)
            ctx.workflows.end_step(run, step.__name__, result, is_last=is_last)

    return advance


def _find(steps: Sequence[Callable[..., Any]], number: int) -> Callable[..., Any]:
    if number >= len(steps):
        raise DeadLetter(f"the workflow has {len(steps)} steps, and the run is at {number}")
    return steps[number]


async def _fail(dead: DeadLettered, ctx: Any) -> None:
    wanted = _step_of(dead)
    if wanted is not None:
        await ctx.workflows.fail(wanted.run_id, wanted.step, _text_of(dead.error))


def _fail_plainly(dead: DeadLettered, ctx: Any) -> None:
    wanted = _step_of(dead)
    if wanted is not None:
        ctx.workflows.fail(wanted.run_id, wanted.step, _text_of(dead.error))


def _step_of(dead: DeadLettered) -> StepMessage | None:
    """Return the step that was given up; None for a message that names none."""
    try:
        return StepMessage.model_validate(from_json(dead.data))
    except ValueError:
        return None


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1000]
