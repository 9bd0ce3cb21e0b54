"""Starting a workflow that nobody has registered."""

from __future__ import annotations

import concurrent.futures

import pytest

from convotic_celery.context import Services, Store
from convotic_celery.errors import InvalidField, TopicHasNoSubscription, WorkflowNotRegistered
from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.context.conftest import DELIVERY


class Publisher:
    """Knows no topic until a test adds one."""

    def __init__(self) -> None:
        self.knows_topics = False

    def publish(self, message: OutgoingMessage, **_: object) -> concurrent.futures.Future[str]:
        future: concurrent.futures.Future[str] = concurrent.futures.Future()
        if self.knows_topics:
            future.set_result("1")
        else:
            future.set_exception(TopicHasNoSubscription(message.topic))
        return future


async def test_unknown_workflow_is_named_and_its_run_does_not_stay(
    store: Store, key_prefix: str
) -> None:
    """A run without an id of the caller's is failed; one with an id can be started again."""
    publisher = Publisher()
    services = Services(store, publisher, key_prefix=key_prefix)
    ctx, plain = services.async_context(DELIVERY), services.sync_context(DELIVERY)

    with pytest.raises(WorkflowNotRegistered, match=r"registers the workflow 'fulfill'"):
        await ctx.workflows.start("fulfill", 1)
    with pytest.raises(WorkflowNotRegistered):
        plain.workflows.start("fulfill", 1, run_id="order-7")

    (failed,) = (await ctx.workflows.list(status="failed")).items
    assert "registers the workflow 'fulfill'" in str(failed.error)
    publisher.knows_topics = True
    assert (await ctx.workflows.start("fulfill", 1, run_id="order-7")).status == "running"


@pytest.mark.parametrize("run_id", ["", 7, "x" * 201])
async def test_run_id_that_is_none_is_refused(
    store: Store, key_prefix: str, run_id: object
) -> None:
    """An empty one would start a run each time, against the promise of the name."""
    ctx = Services(store, Publisher(), key_prefix=key_prefix).async_context(DELIVERY)

    with pytest.raises(InvalidField, match="a run's id must be a string"):
        await ctx.workflows.start("fulfill", run_id=run_id)  # type: ignore[arg-type]  # the point
    with pytest.raises(InvalidField, match="status is one of running, completed, failed"):
        await ctx.workflows.list(status="done")  # type: ignore[arg-type]  # the point
    with pytest.raises(InvalidField, match="is not a cursor"):
        await ctx.workflows.list(cursor="done")
