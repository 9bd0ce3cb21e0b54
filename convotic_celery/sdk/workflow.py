"""Workflows: steps that run in order, each as a message of the workflow's own handler.

A workflow is a handler on the topic ``workflow.NAME``. A message names a run and a step::

    {"run_id": "0199...", "step": 1}

Its retries, deadline and dead letter are the step's; the run's progress is in the store. The
message of a canvas step only starts the canvas; the end of the canvas writes its result.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from convotic_celery.errors import ModuleError
from convotic_celery.sdk.message import WorkerMessage  # noqa: TC001 - read when it registers
from convotic_celery.sdk.outcomes import DeadLetter
from convotic_celery.sdk.signature import inspect_step

if TYPE_CHECKING:
    from convotic_celery.context import ConvoticContext, SyncConvoticContext, WorkflowRun
    from convotic_celery.sdk.dead_lettered import DeadLettered

    StepFunction: TypeAlias = (
        Callable[[WorkflowRun, ConvoticContext], Awaitable[object]]
        | Callable[[WorkflowRun, SyncConvoticContext], object]
    )
    #: A function or Celery canvas; with a name of its own: ``("notify", group(...))``.
    WorkflowStep: TypeAlias = "StepFunction | Canvas | tuple[str, StepFunction | Canvas]"

__all__ = [
    "Canvas",
    "CanvasStart",
    "CanvasStarter",
    "StepMessage",
    "build_workflow",
    "describe_failure",
    "step_names",
]

#: Attribute of a workflow's handler.
_STEP_NAMES = "_convotic_steps"
#: Options that the workflow sets on its handler.
_OWN_OPTIONS = ("concurrency_key", "concurrency_key_limit", "deduplicate", "on_dead_letter")


class Canvas(Protocol):
    """A Celery task, signature, chain, group or chord."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publish it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasStart:
    """The canvas to start, and which step of which run it is."""

    canvas: Canvas
    #: The previous step's result; the run's input for the first step.
    argument: object
    run_id: str
    step: int
    name: str
    is_last: bool


class CanvasStarter:
    """Starts Celery canvas as steps; the app provides one to ``ctx.service``."""

    def start(self, wanted: CanvasStart) -> None:
        """Publish the canvas so that its end updates the run. Blocks."""
        raise NotImplementedError


class StepMessage(BaseModel):
    """Which step of which run to do."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    step: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    function: Callable[..., Any] | None
    canvas: Canvas | None
    #: Where it is defined; "" for canvas.
    source: str = ""


class _Steps:
    """The steps of one workflow."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self._steps = steps

    def name_of(self, number: int) -> str:
        return self._steps[number].name if number < len(self._steps) else ""

    def find(self, number: int) -> _Step:
        if number >= len(self._steps):
            raise DeadLetter(
                f"the workflow has {len(self._steps)} steps, and the run is at {number}"
            )
        return self._steps[number]

    def is_last(self, number: int) -> bool:
        return number + 1 == len(self._steps)

    def describe_start(self, run: Any, step: _Step) -> CanvasStart:
        argument = run.results.get(self._steps[run.step - 1].name) if run.step else run.input
        return CanvasStart(
            canvas=cast("Canvas", step.canvas),
            argument=argument,
            run_id=run.id,
            step=run.step,
            name=step.name,
            is_last=self.is_last(run.step),
        )


def build_workflow(
    name: str, steps: Sequence[WorkflowStep], options: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any], str]:
    """Return the handler that runs a workflow's steps, its options, and where it is defined.

    Raises ModuleError for steps that don't form a workflow.
    """
    own = [option for option in _OWN_OPTIONS if option in options]
    if own:
        raise ModuleError(f"workflow {name!r}: {own[0]} can't be set on a workflow.")
    parsed = [_parse(name, step) for step in steps]
    if not parsed:
        raise ModuleError(f"workflow {name!r} has no steps.")
    names = [step.name for step in parsed]
    if len(set(names)) != len(names):
        raise ModuleError(
            f"workflow {name!r}: two steps of {names} have the same name. Name one: "
            'steps=[..., ("name", step)].'
        )
    kinds = {inspect.iscoroutinefunction(step.function) for step in parsed if step.function}
    if len(kinds) > 1:
        raise ModuleError(f"workflow {name!r}: its steps must be all async def or all plain def.")
    is_async = not kinds or kinds.pop()
    needed = {
        "concurrency_key": "data.run_id",
        "on_dead_letter": _fail if is_async else _fail_plainly,
    }
    build = _build_async if is_async else _build_plain
    sources = [step.source for step in parsed if step.source]
    where = sources[0] if sources else f"workflow {name!r}"
    handler = build(_Steps(tuple(parsed)))
    setattr(handler, _STEP_NAMES, tuple(names))
    return handler, {**options, **needed}, where


def step_names(handler: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the steps that a workflow's handler runs; none for other handlers."""
    found: tuple[str, ...] = getattr(handler, _STEP_NAMES, ())
    return found


def _parse(workflow: str, given: WorkflowStep) -> _Step:
    name, step = given if isinstance(given, tuple) else ("", given)
    if not hasattr(step, "apply_async"):
        function = cast("Callable[..., Any]", step)
        source = inspect_step(function, f"workflow {workflow!r}")
        name = name or getattr(function, "__name__", "")
        if not name or name == "<lambda>":
            raise ModuleError(
                f"workflow {workflow!r}: the step {function!r} has no name; give it one: "
                'steps=[..., ("name", step)].'
            )
        return _Step(name, function, None, source)
    # A signature is a mapping; a task has the attribute ``name``.
    task = str(step["task"] if isinstance(step, Mapping) else getattr(step, "name", ""))
    if not name and task.startswith("celery."):
        raise ModuleError(
            f"workflow {workflow!r}: a {task.removeprefix('celery.')} has no name; give it one: "
            f'steps=[..., ("name", {task.removeprefix("celery.")}(...))].'
        )
    return _Step(name or task.rpartition(".")[2], None, cast("Canvas", step))


def _build_async(steps: _Steps) -> Callable[..., Any]:
    async def advance(message: WorkerMessage[StepMessage], ctx: Any) -> None:
        """Run a workflow's next step."""
        wanted = message.data
        name = steps.name_of(wanted.step)
        run = await ctx.workflows.begin_step(wanted.run_id, wanted.step, name, resume=ctx.is_replay)
        if run is None:
            return
        step = steps.find(run.step)
        if step.function is None:
            starter = ctx.service(CanvasStarter)
            await asyncio.to_thread(starter.start, steps.describe_start(run, step))
            return
        result = await step.function(run, ctx)
        await ctx.workflows.end_step(run, step.name, result, is_last=steps.is_last(run.step))

    return advance


def _build_plain(steps: _Steps) -> Callable[..., Any]:
    def advance(message: WorkerMessage[StepMessage], ctx: Any) -> None:
        """Run a workflow's next step."""
        wanted = message.data
        name = steps.name_of(wanted.step)
        run = ctx.workflows.begin_step(wanted.run_id, wanted.step, name, resume=ctx.is_replay)
        if run is None:
            return
        step = steps.find(run.step)
        if step.function is None:
            ctx.service(CanvasStarter).start(steps.describe_start(run, step))
            return
        result = step.function(run, ctx)
        ctx.workflows.end_step(run, step.name, result, is_last=steps.is_last(run.step))

    return advance


async def _fail(dead: DeadLettered, ctx: Any) -> None:
    wanted = _step_of(dead)
    if wanted is not None:
        await ctx.workflows.fail(wanted.run_id, wanted.step, describe_failure(dead.error))


def _fail_plainly(dead: DeadLettered, ctx: Any) -> None:
    wanted = _step_of(dead)
    if wanted is not None:
        ctx.workflows.fail(wanted.run_id, wanted.step, describe_failure(dead.error))


def _step_of(dead: DeadLettered) -> StepMessage | None:
    """Return the dead-lettered step; None for a message that names none."""
    try:
        return StepMessage.model_validate(from_json(dead.data))
    except ValueError:
        return None


def describe_failure(error: BaseException) -> str:
    """Return the text that a run stores for the error that ended it."""
    return f"{type(error).__name__}: {error}"[:1000]
