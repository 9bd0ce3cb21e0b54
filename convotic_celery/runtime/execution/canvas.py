"""Steps of workflows that are Celery canvas: started as any canvas, with tasks of ours at its end.

``convotic.workflow.end_step`` is linked behind it, ``convotic.workflow.fail_step`` to its errors.
Both may run more than once, in any worker that consumes Celery's default queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas import maybe_signature
from kombu.utils.json import dumps, loads

from convotic_celery.context.delivery import Delivery
from convotic_celery.errors import InvalidField, NotSerializable, WorkflowRunNotFound
from convotic_celery.sdk.workflow import CanvasStart, CanvasStarter, describe_failure

if TYPE_CHECKING:
    from celery import Celery

    from convotic_celery.context.services import Services

__all__ = ["CeleryCanvas", "end_step", "fail_step", "rebuild"]

_END = "convotic.workflow.end_step"
_FAIL = "convotic.workflow.fail_step"

#: How often a failed task's error is looked for; one that ignores its result has none.
_LOOKS_FOR_ERROR = 3

#: Delivered again when their worker dies, and tried again, ever more slowly, while the store or
#: Pub/Sub are unavailable.
_OPTIONS: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "autoretry_for": (Exception,),
    "dont_autoretry_for": (WorkflowRunNotFound,),
    "retry_backoff": True,
    "retry_backoff_max": 60,
    "max_retries": 100,
    "ignore_result": True,
    "shared": False,  # else every other Celery app of this process gets them too
}


class CeleryCanvas(CanvasStarter):
    """Starts canvas with the app's tasks; registers what ends it. Thread-safe."""

    def __init__(self, app: Celery[Any], services: Services) -> None:
        self._app = app

        def end(result: object, *, run_id: str, step: int, name: str, is_last: bool) -> None:
            """Keep what a workflow's canvas has returned."""
            end_step(services, result, run_id=run_id, step=step, name=name, is_last=is_last)

        def fail(task: Any, task_id: str, *, run_id: str, step: int) -> None:
            """Note that a workflow's canvas has failed."""
            error = app.AsyncResult(task_id).result
            is_known = isinstance(error, BaseException)
            if not is_known and task.request.retries < _LOOKS_FOR_ERROR:
                raise LookupError(task_id)  # a chord's error is stored after this is called
            text = describe_failure(error) if is_known else f"its task {task_id} failed"
            fail_step(services, text, run_id=run_id, step=step)

        register: Any = app.task  # not in celery-types with all of these options
        register(name=_END, **_OPTIONS)(end)
        register(name=_FAIL, bind=True, **_OPTIONS)(fail)

    def start(self, wanted: CanvasStart) -> None:
        """Publish the canvas, with what ends it."""
        of_run = {"run_id": wanted.run_id, "step": wanted.step}
        end = self._app.signature(
            _END, kwargs={**of_run, "name": wanted.name, "is_last": wanted.is_last}
        )
        flow = rebuild(wanted.canvas, self._app) | end
        flow.on_error(self._app.signature(_FAIL, kwargs=of_run))
        flow.apply_async((wanted.argument,))


def rebuild(canvas: Any, app: Celery[Any]) -> Any:
    """Return the canvas, or a task's signature, as one of this app.

    A module is loaded before the app is made, so its ``task.s()`` has found another one.
    """
    signature = canvas.s() if hasattr(canvas, "s") else canvas
    return maybe_signature(loads(dumps(signature)), app=app)


def end_step(
    services: Services, result: object, *, run_id: str, step: int, name: str, is_last: bool
) -> None:
    """Keep a step's result and publish the next one, or only that if it was kept already.

    A result that can't be kept fails the run.
    """
    workflows = _workflows(services, run_id)
    run = workflows.begin_step(run_id, step, name)
    if run is None:
        return
    try:
        workflows.end_step(run, name, result, is_last=is_last)
    except (InvalidField, NotSerializable) as error:  # too large, most likely
        workflows.fail(run_id, step, describe_failure(error))


def fail_step(services: Services, error: str, *, run_id: str, step: int) -> None:
    """Note that a step has failed."""
    _workflows(services, run_id).fail(run_id, step, error)


def _workflows(services: Services, run_id: str) -> Any:
    delivery = Delivery(handler=_END, topic=_END, message_id=run_id)
    return services.sync_context(delivery).workflows
