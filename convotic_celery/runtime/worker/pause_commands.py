"""Remote control of workers: what ``convotic pause`` and ``resume`` send. Imported in workers only.

Each answers once it has taken effect.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

__all__ = ["pause_handler", "resume_handler"]


@control_command(args=[("queue", str)], signature="<queue>")
def pause_handler(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Stop pulling a handler's messages; `convotic pause` also tells workers that start later."""
    return {"ok": state.app.pauses.pause(state.consumer, queue)}


@control_command(args=[("queue", str)], signature="<queue>")
def resume_handler(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Pull a paused handler's messages again, as `convotic resume` does."""
    return {"ok": state.app.pauses.resume(state.consumer, queue)}
