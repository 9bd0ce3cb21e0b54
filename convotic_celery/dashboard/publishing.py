"""Publishing from the page: to a topic, or to one handler of it; now or later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.routing import Route

from convotic_celery.dashboard.desk import desk_of
from convotic_celery.dashboard.requests import answer, read_body
from convotic_celery.errors import InvalidMessage

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from convotic_celery.dashboard.desk import Desk

__all__ = ["Publication", "routes"]


class Publication(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid")

    #: Of the handler whose payload type the data is checked against.
    handler: str = ""
    topic: str = ""
    #: JSON text; as text, so that its numbers stay as they were written.
    data: str
    attributes: dict[str, str] = Field(default_factory=dict)
    ordering_key: str = ""
    delay_seconds: float | None = None
    #: True: only ``handler`` gets it; False: every subscription of the topic.
    only_handler: bool = False
    #: Publish also what does not fit the payload type, for instance to see what happens.
    even_if_invalid: bool = False


def routes() -> list[Route]:
    """Return the endpoints."""
    return [Route("/api/publish", publish, methods=["POST"])]


async def publish(request: Request) -> Response:
    """Publish one message and answer its id; 422 if its data does not fit the handler."""
    desk = desk_of(request)
    wanted = await read_body(request, Publication)
    try:
        data = from_json(wanted.data, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"The data is not JSON: {error}") from None
    if wanted.handler:
        problem = _check(desk, wanted)
        if problem and not wanted.even_if_invalid:
            return answer({"error": problem, "may_publish_anyway": True}, 422)
    message_id = await _publish(desk, wanted, data)
    desk.figures.backlogs.expire()
    return answer({"id": message_id, "is_delayed": wanted.delay_seconds is not None})


def _check(desk: Desk, wanted: Publication) -> str:
    definition = desk.handler(wanted.handler)
    try:
        definition.decode(wanted.data.encode(), wanted.attributes)
    except InvalidMessage as error:
        return str(error)
    return ""


async def _publish(desk: Desk, wanted: Publication, data: Any) -> str:
    app = desk.app
    await asyncio.to_thread(app.connect_publisher)  # the first time it may start the emulator
    if wanted.only_handler:
        if wanted.delay_seconds is not None:
            raise HTTPException(400, "A delayed message goes to its topic, not to one handler.")
        task: Any = app.tasks[desk.handler(wanted.handler).queue]
        message_id: str = await task.publisher.apublish(
            task.definition, data, wanted.attributes, wanted.ordering_key
        )
        return message_id
    topic = wanted.topic or desk.handler(wanted.handler).topic
    return await app.services.async_pubsub().publish(
        topic,
        data=data,
        attributes=wanted.attributes,
        ordering_key=wanted.ordering_key,
        delay=wanted.delay_seconds,
    )
