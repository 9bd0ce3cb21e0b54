"""Remote control of workers: what ``convotic pause`` and ``resume`` send, and Celery's revokes.

Imported in workers only, for what it registers.
"""

from __future__ import annotations

from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker.control import control_command
from kombu.pidbox import Node

from convotic_pubsub.errors import MessageTooLarge

__all__ = ["AnsweringNode", "pause_handler", "resume_handler", "revoke", "terminate"]

_celery: Any = control
_revoke, _terminate = _celery.revoke, _celery.terminate


class AnsweringNode(Node):
    """A worker's end of remote control, which also answers where the answer is too large."""

    def reply(self, data: Any, *where: Any, **options: Any) -> None:
        """Send an answer, or why it can't be sent: the caller would wait, and see no worker."""
        send: Any = super().reply
        try:
            send(data, *where, **options)
        except MessageTooLarge as error:
            why = {"error": f"the answer is too large: {error}"}
            send({self.hostname: why}, *where, **options)


@control_command(args=[("queue", str)], signature="<queue>")
def pause_handler(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Stop pulling a handler's messages; `convotic pause` also tells workers that start later."""
    return {"ok": state.app.pauses.pause(state.consumer, queue)}


@control_command(args=[("queue", str)], signature="<queue>")
def resume_handler(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Pull a paused handler's messages again, as `convotic resume` does."""
    return {"ok": state.app.pauses.resume(state.consumer, queue)}


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
