"""What is known of a handler's message by its task's id: the states of results."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.result import AsyncResult

from convotic_celery.errors import StoreUnavailable

__all__ = ["UNKNOWN", "HandlerResult", "TaskResult"]

#: The state of an id that nobody has seen: no message, one that has not run, or one whose outcome
#: has expired.
UNKNOWN = "unknown"


#: Where an id has its version, and that of handlers' tasks; Celery's own ids have version 4.
_VERSION_AT, _HANDLERS_VERSION = 14, "5"


class TaskResult(AsyncResult):  # type: ignore[type-arg]  # as Celery's, of anything
    """What ``app.AsyncResult(id)`` returns: Celery's, which knows the handlers' tasks as well.

    An id of a handler's task that nobody has seen is ``unknown``. Of an ordinary task's id nobody
    can tell whether it was sent, so it is PENDING, as with any Celery app.
    """

    @property
    def state(self) -> Any:  # as below
        """Celery's state; of a handler's message that of its last outcome, or ``unknown``."""
        state = super().state
        if state != states.PENDING or self.id[_VERSION_AT : _VERSION_AT + 1] != _HANDLERS_VERSION:
            return state
        app: Any = self.app
        try:
            found = app.last_outcomes.find_task(self.id, [d.queue for d in app.definitions])
        except StoreUnavailable:
            return UNKNOWN
        return UNKNOWN if found is None else str(found.celery_state)

    status = state


class HandlerResult(AsyncResult):  # type: ignore[type-arg]  # of no value: results are not stored
    """Celery's result of a handler's message, whose state is its last outcome.

    What this process has published is PENDING until an outcome is known; any other id is
    ``unknown`` then. Reading the state asks the store.
    """

    #: Published by this process, so the message exists.
    is_published = False

    def __init__(self, task_id: str, *, task: Any, app: Any, **kwargs: Any) -> None:
        super().__init__(task_id, task_name=task.name, app=app, **kwargs)
        self._handler: str = task.name
        self._outcomes: Any = getattr(app, "last_outcomes", None)

    @property
    def state(self) -> Any:  # REVOKED is missing in celery-types
        """SUCCESS, RETRY, FAILURE, REVOKED, PENDING or ``unknown``."""
        waiting: str = states.PENDING if self.is_published else UNKNOWN
        if self._outcomes is None:
            return waiting
        try:
            found = self._outcomes.find(self._handler, self.id)
        except StoreUnavailable:
            return waiting
        return waiting if found is None else str(found.celery_state)

    status = state
