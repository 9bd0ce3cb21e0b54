"""What every endpoint works with: :class:`Desk`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request

    from convotic_celery.app import ConvoticApp
    from convotic_celery.dashboard.figures import Figures
    from convotic_celery.sdk.handler import HandlerDefinition

__all__ = ["Desk", "desk_of"]


@dataclass(frozen=True)
class Desk:
    """What an application's endpoints share. Lives as long as the application."""

    app: ConvoticApp
    figures: Figures
    #: Replays and purges, which may take minutes.
    jobs: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="dashboard-job")
    )

    @property
    def is_read_only(self) -> bool:
        """Whether the page can't change anything."""
        return self.app.settings.dashboard_read_only

    @property
    def shows_payloads(self) -> bool:
        """Whether data, attributes and results may be shown."""
        return self.app.settings.dashboard_payloads

    def handler(self, queue: str) -> HandlerDefinition:
        """Return the handler of a queue; raises HTTPException 404."""
        for definition in self.app.definitions:
            if definition.queue == queue:
                return definition
        raise HTTPException(404, f"No handler {queue} is loaded here.")


def desk_of(request: Request) -> Desk:
    """Return the desk of the request's application."""
    desk: Desk = request.app.state.desk
    return desk
