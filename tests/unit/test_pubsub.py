"""The façade for publishing: how coroutines come to a connected app."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from convotic_celery import pubsub
from convotic_celery.errors import ConfigurationError
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable


class App:
    """What the façade needs of an app; connecting takes until ``go_on`` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.connects = 0
        self.error = error
        self.go_on = threading.Event()
        self.services = SimpleNamespace(async_pubsub=lambda: self)

    def connect_publisher(self) -> None:
        self.connects += 1
        assert self.go_on.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    async def publish(self, topic: str, *_: object, **__: object) -> str:
        return f"{topic} by {id(self)}"


def using(app: App) -> Any:
    stand_in: Any = app
    return pubsub.using(stand_in)


def start(*topics: str) -> list[asyncio.Task[str]]:
    async def publish(topic: str) -> str:
        return await pubsub.apublish(topic)

    return [asyncio.create_task(publish(topic)) for topic in topics]


def ended(tasks: list[asyncio.Task[str]]) -> Awaitable[list[str | BaseException]]:
    return asyncio.gather(*tasks, return_exceptions=True)


async def test_coroutines_that_publish_at_once_connect_once() -> None:
    """The first that gives up leaves the others their connection; later ones need none."""
    app = App()
    with using(app):
        tasks = start("a", "b", "c")
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        app.go_on.set()

        first, second, third = await ended(tasks)
        assert await pubsub.apublish("d") == f"d by {id(app)}"

    assert isinstance(first, asyncio.CancelledError)
    assert (second, third) == (f"b by {id(app)}", f"c by {id(app)}")
    assert app.connects == 1


async def test_an_app_chosen_meanwhile_is_connected_too() -> None:
    """What is published after ``use`` goes there, although another app is just connecting."""
    old, new = App(), App()
    new.go_on.set()
    with using(old):
        [before] = start("a")
        await asyncio.sleep(0)
        with using(new):
            [after] = start("b")
            await asyncio.sleep(0)
            old.go_on.set()

            assert await after == f"b by {id(new)}"
        await before


async def test_all_hear_why_it_does_not_connect() -> None:
    """The next publish tries again."""
    app = App(ConfigurationError("no"))
    app.go_on.set()
    with using(app):
        errors = await ended(start("a", "b"))
        app.error = None

        assert await pubsub.apublish("c") == f"c by {id(app)}"

    assert [type(error) for error in errors] == [ConfigurationError] * 2
    assert app.connects == 2


def test_each_loop_connects_for_itself() -> None:
    """A loop that ends while it connects does not keep the next one waiting."""
    app = App()
    app.go_on.set()
    with using(app):

        async def give_up() -> None:
            [task] = start("a")
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(give_up())

        assert asyncio.run(pubsub.apublish("b")) == f"b by {id(app)}"
