"""``convotic_app``: modules in the test's process, with Pub/Sub in memory and a real store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp
from convotic_celery.context.delivery import Delivery
from convotic_celery.errors import HandlerNotLoaded, PublishRefused
from convotic_celery.modules import apply_settings, surround_routes
from convotic_celery.runtime.delivery.attributes import (
    MESSAGE_ID_ATTRIBUTE,
    REPLAY_COUNT_ATTRIBUTE,
    REPLAY_TOKEN_ATTRIBUTE,
    TARGET_ATTRIBUTE,
)
from convotic_celery.runtime.execution.lifespans import one_of_each
from convotic_celery.runtime.publish import HandlerPublisher
from convotic_celery.sdk.workflow import CanvasStarter
from convotic_celery.settings import Settings
from convotic_celery.testing.broker import DeadLetterSeen, MemoryBroker, PublishedMessage, RunSeen
from convotic_celery.testing.canvas import EagerCanvas
from convotic_celery.testing.clock import MovingClock
from convotic_celery.testing.runner import Runner
from convotic_celery.testing.store import shared_store_url
from convotic_celery.testing.unawaited import check_awaited, noticing_unawaited
from convotic_pubsub.outgoing import OutgoingMessage

if TYPE_CHECKING:
    from convotic_celery.context import ConvoticContext, ServicesHook, SyncConvoticContext
    from convotic_celery.sdk.module import ConvoticModule
    from convotic_celery.testing.broker import Pending

__all__ = ["AppUnderTest", "convotic_app"]

#: A test that runs this many deliveries is an endless loop.
MAX_RUNS = 10_000


class AppUnderTest:
    """Modules that run in this process. Made by :func:`convotic_app`; used by one event loop."""

    def __init__(
        self,
        app: ConvoticApp,
        clock: MovingClock,
        unawaited: list[str],
        *,
        topics: Iterable[str] = (),
        raise_errors: bool = False,
    ) -> None:
        self.app = app
        self._unawaited = unawaited
        #: Moves retries, delayed messages, ``published_at`` and ``max_message_age``.
        self.clock = clock
        # What nobody listens to is announced all the same, as in production.
        topics = (app.settings.sent_messages_topic, *topics)
        self._broker = MemoryBroker(app.definitions, clock, topics)
        self._runner = Runner(app, self._broker, clock, raise_errors=raise_errors)
        app.services.publisher = self._broker
        self._schedule = app.services.async_schedule
        app.services.async_schedule.now = app.services.sync_schedule.now = clock.now
        app.services.provide(CanvasStarter, EagerCanvas(app))
        publisher = HandlerPublisher(self._broker, app.settings.publish_timeout)
        for definition in app.definitions:
            app.tasks[definition.queue].publisher = publisher  # type: ignore[attr-defined]  # HandlerTask's
        modules = [*(d.module for d in app.definitions), *(r.module for r in app.routes)]
        self._delivery = Delivery(
            handler="test", topic="test", message_id="test", module=modules[0] if modules else ""
        )
        #: A context, to prepare data and to check it: ``await app.ctx.contacts.create(...)``. Its
        #: storage is the first module's.
        self.ctx: ConvoticContext = app.services.async_context(self._delivery)
        #: The same for plain code.
        self.sync_ctx: SyncConvoticContext = app.services.sync_context(self._delivery)

    @property
    def runs(self) -> list[RunSeen]:
        """The outcome of each delivery so far, in order."""
        return self._runner.runs

    @property
    def dead_letters(self) -> list[DeadLetterSeen]:
        """The dead letters so far, in order."""
        return self._runner.dead_letters

    @property
    def published(self) -> list[PublishedMessage]:
        """All messages published so far, by the test and by handlers, in order."""
        return self._broker.published

    async def publish(
        self,
        topic: str,
        message: Mapping[str, Any] | None = None,
        *,
        data: Any = None,
        attributes: Mapping[str, str] | None = None,
        ordering_key: str = "",
        delay: float | timedelta | None = None,
    ) -> str:
        """Publish as ``ctx.pubsub.publish`` does, with the same checks; return the id.

        Raises:
            TopicHasNoSubscription: No handler of the modules under test subscribes to the topic,
                and ``topics`` does not name it.
        """
        if problem := self._broker.problem_with(topic):
            raise problem
        return await self.ctx.pubsub.publish(
            topic,
            message,
            data=data,
            attributes=attributes,
            ordering_key=ordering_key,
            delay=delay,
        )

    async def publish_raw(self, topic: str, data: bytes, **attributes: str) -> str:
        """Publish bytes without any check, as a foreign client may."""
        return self._broker.publish(OutgoingMessage(topic, data, attributes)).result()

    async def run_due(self) -> list[RunSeen]:
        """Run all messages that are due now, and those they publish; return the outcomes.

        Deliveries run one at a time, in the order of publishing; a handler with ``batch`` gets all
        that are due, up to its ``max_size``. A message that fails waits for its retry: move
        :attr:`clock`, and call this again.
        """
        first = len(self.runs)
        while due := await self._take_due():
            for group in _groups(due):
                if group[0].definition.options.batch is None:
                    await self._runner.run(group[0])
                else:
                    await self._runner.run_together(group)
                check_awaited(self._unawaited)
                if len(self.runs) - first > MAX_RUNS:
                    raise AssertionError(f"more than {MAX_RUNS} deliveries without an end")
        return self.runs[first:]

    async def drain(self) -> list[RunSeen]:
        """Run until no message is left; return all outcomes.

        Moves the clock to each retry and each delayed message. Afterwards each message has
        succeeded, was dropped, or is in :attr:`dead_letters`.
        """
        first = len(self.runs)
        await self.run_due()
        while (due_at := await self._next_due()) is not None:
            self.clock.move_to(due_at)
            await self.run_due()
            if len(self.runs) - first > MAX_RUNS:
                raise AssertionError(f"more than {MAX_RUNS} deliveries without an end")
        return self.runs[first:]

    async def _take_due(self) -> list[Pending]:
        """Publish the delayed messages that are due, and take what is to be run now."""
        while taken := (await self._schedule.take_due("test", limit=MAX_RUNS)).messages:
            for each in taken:
                self._broker.publish(each.message).result()
            await self._schedule.settle(each.id for each in taken)
        return self._broker.take_due()

    async def _next_due(self) -> datetime | None:
        found = [self._broker.next_due(), await self._schedule.next_due()]
        return min((due_at for due_at in found if due_at is not None), default=None)

    async def replay(self, dead_letter: DeadLetterSeen) -> str:
        """Publish a dead letter again for its handler alone, as an operator does."""
        dead = dead_letter.all_attributes
        attributes = {
            **dead_letter.raw.attributes,
            TARGET_ATTRIBUTE: dead_letter.handler,
            MESSAGE_ID_ATTRIBUTE: dead_letter.message_id,
            REPLAY_TOKEN_ATTRIBUTE: dead[REPLAY_TOKEN_ATTRIBUTE],
            REPLAY_COUNT_ATTRIBUTE: str(int(dead[REPLAY_COUNT_ATTRIBUTE]) + 1),
        }
        topic = next(d.topic for d in self.app.definitions if d.queue == dead_letter.handler)
        message = OutgoingMessage(topic, dead_letter.raw.data, attributes)
        return self._broker.publish(message).result()


class _App(ConvoticApp):
    """An app without a broker: what would be sent to a worker's queue is an error."""

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Publish to a handler; refuse ordinary tasks and names that nobody has."""
        if any(definition.queue == name for definition in self.definitions):
            return super().send_task(name, *args, **kwargs)
        if name in self.tasks:
            raise PublishRefused(
                f"{name} is an ordinary task, and convotic_app has no worker for it: call "
                f"{name.rpartition('.')[2]}.apply(), or set app.app.conf.task_always_eager."
            )
        raise HandlerNotLoaded(name, [definition.queue for definition in self.definitions])


@asynccontextmanager
async def convotic_app(
    *modules: ConvoticModule,
    services: ServicesHook | None = None,
    store_url: str | None = None,
    topics: Iterable[str] = (),
    now: Any = None,
    raise_errors: bool = False,
    **settings: Any,
) -> AsyncIterator[AppUnderTest]:
    """Run modules inside the block, with nothing outside this process but the store.

    The modules' lifespans are open inside the block; errors on entering them pass through. A
    coroutine that is never awaited, in a handler or the test, raises an AssertionError.

    Args:
        modules: The modules to run.
        services: Plugs in services of your own, as ``create_app(services=...)`` does.
        store_url: A Redis or Valkey; None starts one for the process. Each app has its own keys,
            which are deleted at the end.
        topics: Topics of other modules, to which these may publish; a publish to any other that no
            handler here subscribes to is an error, TopicHasNoSubscription.
        now: The clock's initial time, a timezone-aware datetime; None: now.
        raise_errors: Have ``drain`` and ``run_due`` raise what a handler raises, after its message
            is settled; but not Retry, DeadLetter and Drop, which choose an outcome.
        settings: Fields of Settings, e.g. ``handler_options``.
    """
    url = store_url or await asyncio.to_thread(shared_store_url)
    prefix = f"test-{uuid.uuid4().hex[:12]}:"
    configured = Settings(
        **{
            "broker_url": "pubsub://in-memory",
            "redis_url": url,
            "modules": [],
            "store_key_prefix": prefix,
            **settings,
        }
    )
    collected = [module.collect() for module in modules]
    app = _App(
        configured,
        apply_settings(configured, [d for sdk in collected for d in sdk.handlers]),
        routes=[*surround_routes(configured, [r for sdk in collected for r in sdk.routes])],
        services_hook=services,
        set_as_current=False,
    )
    app.finalize()
    app.lifespans.use_loop(asyncio.get_running_loop())
    try:
        with pubsub.using(app), noticing_unawaited() as unawaited:
            under_test = AppUnderTest(
                app, MovingClock(now), unawaited, topics=topics, raise_errors=raise_errors
            )
            for definition in one_of_each([*app.definitions, *app.routes]):
                await app.lifespans.enter(definition)
            yield under_test
            check_awaited(unawaited)
    finally:
        await app.lifespans.aclose()
        await _delete_keys(app, prefix)
        await app.store.aclose()
        app.store.close()
        app.close()


def _groups(due: list[Pending]) -> list[list[Pending]]:
    """Return what is run together, in the order of the first of each."""
    groups: list[list[Pending]] = []
    open_groups: dict[str, list[Pending]] = {}
    for pending in due:
        batch = pending.definition.options.batch
        group = open_groups.get(pending.definition.queue) if batch else None
        if group is None or batch is None or len(group) >= batch.max_size:
            group = open_groups[pending.definition.queue] = []
            groups.append(group)
        group.append(pending)
    return groups


async def _delete_keys(app: ConvoticApp, prefix: str) -> None:
    client = app.store.async_client()
    found = [key async for key in client.scan_iter(match=f"{prefix}*", count=1000)]
    if found:
        await client.delete(*found)
