"""Workflows: started by name, stored, and run step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convotic_celery.context import records, workflow_runs, workflow_scripts
from convotic_celery.context.paging import Paging
from convotic_celery.context.scripts import READ_HASH
from convotic_celery.errors import (
    TopicHasNoSubscription,
    WorkflowNotRegistered,
    WorkflowRunNotFound,
)
from convotic_celery.names import workflow_topic

if TYPE_CHECKING:
    from convotic_celery.context._async.pubsub import AsyncPubsub
    from convotic_celery.context.database import AsyncDatabase
    from convotic_celery.context.keys import Keys
    from convotic_celery.context.models import Page
    from convotic_celery.context.workflow_runs import (
        WorkflowRun,
        WorkflowRunSummary,
        WorkflowStatus,
    )

__all__ = ["AsyncWorkflows"]


class AsyncWorkflows:
    """Runs of workflows that modules have registered.

    A run's state is changed first, then the next step is published. After a crash in between, the
    message is delivered again and continues from the state. All methods raise StoreUnavailable
    while the store does not answer.
    """

    def __init__(self, database: AsyncDatabase, keys: Keys, pubsub: AsyncPubsub) -> None:
        self._database = database
        self._keys = keys
        self._pubsub = pubsub

    async def start(
        self,
        name: str,
        input: object = None,  # noqa: A002 - its name
        *,
        run_id: str | None = None,
    ) -> WorkflowRun:
        """Start a run of the workflow and return it, once its first step is published.

        With a ``run_id`` of your own (an order's id) it is started once, however often this is
        called, with the first call's input. Call it again after an error.

        Raises:
            ModuleError: The name is invalid.
            WorkflowNotRegistered: No loaded module has registered this workflow.
            NotSerializable: The input has no JSON form.
        """
        topic = workflow_topic(name)
        now = records.utc_now()
        fields = {
            "id": workflow_runs.check_run_id(records.new_id() if run_id is None else run_id),
            "name": name,
            "status": "running",
            "step": "0",
            "input": workflow_runs.encode_value("the input", input),
            "created_at": now,
            "updated_at": now,
        }
        found = await self._database.run(
            workflow_scripts.CREATE_RUN,
            [self._keys.workflow_run(fields["id"])],
            self._keys.workflow_indexes,
            self._keys.workflow_runs,
            name,
            f"{records.new_id()}:{fields['id']}",
            *records.flatten(fields),
        )
        run = _expect(fields["id"], workflow_runs.parse_run(found))
        if run.status == "running" and run.step == 0:
            try:
                await self._pubsub.publish(topic, data={"run_id": run.id, "step": 0})
            except TopicHasNoSubscription as error:
                unknown = WorkflowNotRegistered(name)
                if run_id is None:  # the caller can't start this one again
                    await self.fail(run.id, 0, str(unknown))
                raise unknown from error
        return run

    async def get(self, run_id: str) -> WorkflowRun:
        """Return the run as it is now; raises WorkflowRunNotFound.

        Runs that have ended are kept for 30 days.
        """
        found = await self._database.run(READ_HASH, [self._keys.workflow_run(run_id)])
        return _expect(run_id, workflow_runs.parse_run(found))

    async def list(
        self,
        name: str | None = None,
        *,
        status: WorkflowStatus | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[WorkflowRunSummary]:
        """Return a page of runs, newest first: all, a workflow's, those in a state, or both.

        They have no inputs and results, which :meth:`get` returns. ``limit`` is 1 to 1,000.
        Raises InvalidField, also for an unknown status.
        """
        start, count, *_ = Paging(limit, cursor, newest_first=True).arguments("")
        found = await self._database.run(
            workflow_scripts.LIST_RUNS,
            [self._keys.workflow_index(name or "", workflow_runs.check_status(status))],
            start,
            count,
            self._keys.workflow_runs,
            *workflow_runs.SUMMARY_FIELDS,
        )
        return workflow_runs.parse_summaries(found, limit)

    async def resume(self, run_id: str) -> WorkflowRun:
        """Continue a run with its next step, also a failed one; raises WorkflowRunNotFound.

        Has no effect on a completed run.
        """
        run = await self._resume(run_id)
        if run.status == "running":
            await self._publish_next(run)
        return run

    async def begin_step(
        self,
        run_id: str,
        step: int,
        name: str,
        *,
        resume: bool = False,
    ) -> WorkflowRun | None:
        """Return the run if this is its next step, else None; for the workflow's own handler.

        The run remembers the step's name. If the step is completed but its successor may not have
        been published, that is published again. ``resume`` continues a failed run.
        """
        if resume:
            await self._resume(run_id)
        found = await self._database.run(
            workflow_scripts.BEGIN_STEP,
            [self._keys.workflow_run(run_id)],
            str(step),
            name,
            records.utc_now(),
        )
        run = _expect(run_id, workflow_runs.parse_run(found))
        if run.status != "running" or step > run.step:
            return None
        if step < run.step:
            await self._publish_next(run)
            return None
        return run

    async def end_step(
        self,
        run: WorkflowRun,
        name: str,
        result: object,
        *,
        is_last: bool,
    ) -> None:
        """Store a step's result and publish the next one; for the workflow's own handler.

        Has no effect if another run of the step was faster.
        """
        arguments = [
            self._keys.workflow_indexes,
            str(run.step),
            f"result:{name}",
            workflow_runs.encode_value(f"the result of step {name}", result),
            "completed" if is_last else "running",
            records.utc_now(),
            str(workflow_runs.KEPT_SECONDS * 1000) if is_last else "",
        ]
        key = self._keys.workflow_run(run.id)
        done = await self._database.run(workflow_scripts.END_STEP, [key], *arguments)
        if done == 1 and not is_last:
            await self._pubsub.publish(
                workflow_topic(run.name), data={"run_id": run.id, "step": run.step + 1}
            )

    async def fail(self, run_id: str, step: int, error: str) -> None:
        """Record that a run failed at this step; for the workflow's own handler."""
        arguments = [
            self._keys.workflow_indexes,
            str(step),
            error,
            records.utc_now(),
            str(workflow_runs.KEPT_SECONDS * 1000),
        ]
        key = self._keys.workflow_run(run_id)
        await self._database.run(workflow_scripts.FAIL_RUN, [key], *arguments)

    async def _resume(self, run_id: str) -> WorkflowRun:
        found = await self._database.run(
            workflow_scripts.RESUME_RUN,
            [self._keys.workflow_run(run_id)],
            self._keys.workflow_indexes,
            records.utc_now(),
        )
        return _expect(run_id, workflow_runs.parse_run(found))

    async def _publish_next(self, run: WorkflowRun) -> None:
        data = {"run_id": run.id, "step": run.step}
        await self._pubsub.publish(workflow_topic(run.name), data=data)


def _expect(run_id: str, run: WorkflowRun | None) -> WorkflowRun:
    if run is None:
        raise WorkflowRunNotFound(run_id)
    return run
