"""Tasks of handlers that this Flower has not seen: their last outcome, from the store."""

from __future__ import annotations

import asyncio
from typing import Any

from flower.api import tasks as api  # type: ignore[import-untyped]
from flower.utils.tasks import get_task_by_id  # type: ignore[import-untyped]
from flower.views.tasks import TaskView  # type: ignore[import-untyped]
from tornado import web

from convotic_celery.dead_letters.entry import entry_id
from convotic_celery.errors import StoreUnavailable

__all__ = ["ShowTask", "know_handlers"]


class ShowTask(TaskView):  # type: ignore[misc]  # Flower has no types
    """Flower's page of a task; where it knows nothing of a handler's, what the store knows."""

    @web.authenticated
    async def get(self, task_id: str) -> None:
        """Answer the page; 404 for an id that nobody knows."""
        outcomes = getattr(self.capp, "last_outcomes", None)
        flower: Any = self.application
        if outcomes is None or get_task_by_id(flower.events, task_id) is not None:
            super().get(task_id)
            return
        handlers = [definition.queue for definition in self.capp.definitions]
        try:
            found = await asyncio.to_thread(outcomes.find_task, task_id, handlers)
        except StoreUnavailable:
            raise web.HTTPError(
                503, "The store, which may know this task, is unavailable"
            ) from None
        if found is None:
            raise web.HTTPError(404, f"Task '{task_id}' is unknown to Flower and to the store")
        entry = entry_id(found.handler, found.message_id)
        self.render("handler_task.html", task_id=task_id, outcome=found, entry=entry)


def know_handlers() -> None:
    """Have Flower's API ask the app for results: its class knows the tasks of handlers."""

    def result(task_id: str) -> Any:
        from celery import current_app  # noqa: PLC0415 - the one that Flower runs, by then

        return current_app.AsyncResult(task_id)

    api.AsyncResult = result
