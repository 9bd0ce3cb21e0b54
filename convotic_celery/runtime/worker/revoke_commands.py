"""Celery's ``revoke`` and ``terminate``, which also note the ids in the store. In workers only."""

from __future__ import annotations

from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker.control import control_command

__all__ = ["revoke", "terminate"]

_celery: Any = control
_revoke, _terminate = _celery.revoke, _celery.terminate


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, **options: Any) -> Any:
    """Revoke task by task id (or list of ids)."""
    answer = _revoke(state, task_id, **options)  # raises for what is no id
    state.app.revokes.add_soon(map(str, maybe_list(task_id) or ()))
    return answer


@control_command(
    variadic="task_id",
    args=[("signal", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(state: Any, signal: Any, task_id: Any, **options: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    answer = _terminate(state, signal, task_id, **options)
    state.app.revokes.add_soon(map(str, maybe_list(task_id) or ()))
    return answer
