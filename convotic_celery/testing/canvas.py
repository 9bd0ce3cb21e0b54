"""Runs the Celery canvas of a workflow's step at once, in the test's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.result import allow_join_result

from convotic_celery.runtime.execution.canvas import end_step, fail_step, rebuild
from convotic_celery.sdk.workflow import CanvasStart, CanvasStarter, describe_failure

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp

__all__ = ["EagerCanvas"]


class EagerCanvas(CanvasStarter):
    """Calls the canvas's tasks where they are started; there is no worker that would."""

    def __init__(self, app: ConvoticApp) -> None:
        self._app = app

    def start(self, wanted: CanvasStart) -> None:
        """Run the canvas to its end, and tell the run."""
        try:
            with allow_join_result():  # all has been run when it is asked for
                result = rebuild(wanted.canvas, self._app).apply((wanted.argument,)).get()
        except Exception as error:  # noqa: BLE001 - a task may raise anything
            text = describe_failure(error)
            fail_step(self._app.services, text, run_id=wanted.run_id, step=wanted.step)
        else:
            end_step(
                self._app.services,
                result,
                run_id=wanted.run_id,
                step=wanted.step,
                name=wanted.name,
                is_last=wanted.is_last,
            )
