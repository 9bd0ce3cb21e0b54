"""Publishing from anywhere: scripts, Django, FastAPI, any Celery task.

::

    from convotic_celery import pubsub

    pubsub.publish("custom.orders.new", data={"id": 1, "customer_id": "c-1"})
    await pubsub.apublish("custom.orders.new", data=order)
    later = pubsub.publish("custom.orders.remind", data=order, delay=3600)
    pubsub.cancel(later)

Handlers and routes have the same as ``ctx.pubsub``, which also passes on the trace context. The
environment (``CONVOTIC_*``) says where to publish, or :func:`use`. The first call loads the
modules, so that a missing topic is created with its subscriptions, and connects. Thread-safe. A
process that has published before it forks publishes for its children, as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from convotic_celery.app import ConvoticApp
    from convotic_celery.context import AsyncPubsub, SyncPubsub
    from convotic_celery.context.scheduled import Delay
    from convotic_celery.runtime.execution.task import HandlerTask
    from convotic_celery.settings import Settings

__all__ = [
    "acancel",
    "apublish",
    "apublish_many",
    "cancel",
    "publish",
    "publish_many",
    "use",
]

#: Reentrant: a module that publishes while it is loaded is a bad idea, but must not hang.
_lock = threading.RLock()
_app: ConvoticApp | None = None
#: The app and the process that have connected, so that async code need not wait in a thread again.
_connected: tuple[int, int] | None = None
#: What the coroutines of a loop wait for together, while one of them connects.
_connecting: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}


def publish(
    topic: str,
    message: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str = "",
    delay: Delay | None = None,
) -> str:
    """Publish and return the message id, once the server has confirmed it. Blocks.

    With a ``delay`` (seconds or a timedelta) it is kept until then, and a schedule id returned.
    Means what ``ctx.pubsub.publish`` means, and raises the same; also ConfigurationError and
    ModuleError on the first call.
    """
    return _pubsub().publish(
        topic, message, data=data, attributes=attributes, ordering_key=ordering_key, delay=delay
    )


def publish_many(
    topic: str, messages: Iterable[Mapping[str, Any]], *, delay: Delay | None = None
) -> list[str]:
    """Publish many and return their ids, in order, once all are confirmed. Blocks.

    Raises PublishManyFailed that says which failed; see ``ctx.pubsub.publish_many``.
    """
    return _pubsub().publish_many(topic, messages, delay=delay)


def cancel(schedule_id: str) -> bool:
    """Cancel a delayed message; True if it was still waiting. Blocks; see ``ctx.pubsub.cancel``."""
    return _pubsub().cancel(schedule_id)


async def apublish(
    topic: str,
    message: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str = "",
    delay: Delay | None = None,
) -> str:
    """Do what :func:`publish` does, without blocking the event loop."""
    pubsub = await _async_pubsub()
    return await pubsub.publish(
        topic, message, data=data, attributes=attributes, ordering_key=ordering_key, delay=delay
    )


async def apublish_many(
    topic: str, messages: Iterable[Mapping[str, Any]], *, delay: Delay | None = None
) -> list[str]:
    """Do what :func:`publish_many` does, without blocking the event loop."""
    pubsub = await _async_pubsub()
    return await pubsub.publish_many(topic, messages, delay=delay)


async def acancel(schedule_id: str) -> bool:
    """Do what :func:`cancel` does, without blocking the event loop."""
    pubsub = await _async_pubsub()
    return await pubsub.cancel(schedule_id)


def publish_to_handler(
    queue: str, data: Any, attributes: Mapping[str, str], ordering_key: str
) -> str:
    """Publish a message that only this handler gets; what ``process_order.delay(order)`` does."""
    task = _find_handler(_find_app(), queue)
    return task.publisher.publish(task.definition, data, attributes, ordering_key)


async def apublish_to_handler(
    queue: str, data: Any, attributes: Mapping[str, str], ordering_key: str
) -> str:
    """Do what :func:`publish_to_handler` does, without blocking the event loop."""
    task = _find_handler(await _connect(), queue)
    return await task.publisher.apublish(task.definition, data, attributes, ordering_key)


def _find_handler(app: ConvoticApp, queue: str) -> HandlerTask:
    from convotic_celery.errors import HandlerNotLoaded  # noqa: PLC0415 - as in use()
    from convotic_celery.runtime.execution.task import HandlerTask  # noqa: PLC0415 - as in use()

    task = app.tasks.get(queue)
    if not isinstance(task, HandlerTask):
        raise HandlerNotLoaded(queue, [definition.queue for definition in app.definitions])
    return task


def use(where: ConvoticApp | Settings | None) -> None:
    """Publish through this app, or with these settings, from now on; None forgets both.

    Needed only where the environment does not say it.
    """
    from convotic_celery.app import ConvoticApp, create_app  # noqa: PLC0415 - as above

    global _app  # noqa: PLW0603 - a process publishes to one place
    if where is None or isinstance(where, ConvoticApp):
        app = where
    else:
        app = create_app(where, set_as_current=False)
    with _lock:
        _app = app


@contextlib.contextmanager
def using(app: ConvoticApp) -> Iterator[None]:
    """Publish through this app for the block, and then through what was in use; for tests."""
    global _app  # noqa: PLW0603 - a process publishes to one place
    with _lock:
        before, _app = _app, app
    try:
        yield
    finally:
        with _lock:
            _app = before


def use_unless_chosen(app: ConvoticApp) -> None:
    """Publish through this app if none is in use yet; for programs that have made one anyway."""
    global _app  # noqa: PLW0603 - as above
    with _lock:
        _app = _app or app


def _find_app() -> ConvoticApp:
    """Return the app to publish through: the one in use, Celery's current one, or a new one."""
    global _app  # noqa: PLW0603 - as above
    with _lock:
        if _app is None:
            from convotic_celery.app import create_app  # noqa: PLC0415 - as above

            # Not as the current app: that may be the caller's own Celery app.
            _app = _find_celery_app() or create_app(set_as_current=False)
        return _app


def _find_celery_app() -> ConvoticApp | None:
    """Return Celery's current or default app if it is ours, as it is in a worker."""
    from convotic_celery.app import ConvoticApp  # noqa: PLC0415 - as above
    from convotic_celery.runtime.celery_internals import known_apps  # noqa: PLC0415 - as above

    for app in known_apps():
        if isinstance(app, ConvoticApp):
            return app
    return None


async def _connect() -> ConvoticApp:
    """Return the app, connected: what blocks on the way is done in a thread, once."""
    while True:
        app = _app
        if app is not None and _connected == (id(app), os.getpid()):
            return app
        # Whoever is cancelled leaves the others their connection.
        await asyncio.shield(_find_connecting())


def _find_connecting() -> asyncio.Task[None]:
    """Return what connects for all coroutines of the running loop."""
    loop = asyncio.get_running_loop()
    connecting = _connecting.get(loop)
    if connecting is None:
        _connecting[loop] = connecting = loop.create_task(_connect_in_thread())
        connecting.add_done_callback(lambda _: _connecting.pop(loop))
    return connecting


async def _connect_in_thread() -> None:
    global _connected  # noqa: PLW0603 - as above
    app = await asyncio.to_thread(_find_app)
    await asyncio.to_thread(app.connect_publisher)
    _connected = (id(app), os.getpid())


def _pubsub() -> SyncPubsub:
    return _find_app().services.sync_pubsub()


async def _async_pubsub() -> AsyncPubsub:
    app = await _connect()
    return app.services.async_pubsub()
