"""Calling a handler as a task, and what a handler's task refuses."""

# ruff: noqa: ARG001 - handlers take (message, ctx), used or not

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from celery import chain, chord, group, signature

from convotic_celery.app import ConvoticApp
from convotic_celery.errors import InvalidMessage, PublishRefused
from convotic_celery.runtime.delivery.payload import task_id_of
from convotic_celery.runtime.execution.task import HandlerTask
from convotic_celery.runtime.publish import HandlerPublisher
from convotic_celery.sdk.message import WorkerMessage
from convotic_pubsub.outgoing import OutgoingMessage
from tests.unit.runtime.support import define, make_app


class Topic:
    """Stands for the transport: keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, dict[str, str], str]] = []

    def publish(self, message: OutgoingMessage, **_: Any) -> Future[str]:
        self.messages.append(
            (message.topic, message.data, dict(message.attributes), message.ordering_key)
        )
        confirmed: Future[str] = Future()
        confirmed.set_result(f"m-{len(self.messages)}")
        return confirmed


def make_task_on(topic: Topic, handler: Any = None, **options: Any) -> tuple[ConvoticApp, Any]:
    definition = define(handler, **options) if handler else define(**options)
    app = make_app(definition)
    task: Any = app.tasks[definition.queue]
    task.publisher = HandlerPublisher(topic, 1.0)
    return app, task


def test_delay_publishes_a_raw_message_for_this_handler_only() -> None:
    """No Celery envelope: the data is the JSON, and convotic-target names the handler."""
    topic = Topic()
    _, task = make_task_on(topic)

    result = task.delay({"id": 1}, attributes={"source": "test"}, ordering_key="k")

    ((name, data, attributes, key),) = topic.messages
    assert (name, json.loads(data), key) == ("orders.new", {"id": 1}, "k")
    assert attributes == {"source": "test", "convotic-target": "orders.new.shop"}
    assert result.id == task_id_of("orders.new.shop", "m-1")


def test_send_task_by_name_does_the_same() -> None:
    """`celery call` and other apps know only the name."""
    topic = Topic()
    app, task = make_task_on(topic)

    app.send_task(task.name, args=[{"id": 2}], countdown=0, expires=None)

    assert json.loads(topic.messages[0][1]) == {"id": 2}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("countdown", 5),
        ("eta", "2030-01-01"),
        ("expires", 60),
        ("link", ["x"]),
        ("task_id", "mine"),
        ("headers", {"a": 1}),
        ("priority", 5),
        ("queue", "another"),
        ("serializer", "pickle"),
        ("compression", "gzip"),
        ("link_error", [1]),
    ],
)
def test_what_a_raw_message_can_t_carry_is_refused(option: str, value: Any) -> None:
    """With the option's name and the reason, before anything is sent."""
    topic = Topic()
    _, task = make_task_on(topic)

    with pytest.raises(PublishRefused, match=f"{option}=: "):
        task.apply_async(({"id": 1},), **{option: value})
    assert topic.messages == []


@pytest.mark.parametrize("by", ["task", "name"])
@pytest.mark.parametrize("where", ["first", "last", "group", "header", "body", "clone"])
def test_a_handler_in_a_canvas_is_refused_when_that_is_sent(where: str, by: str) -> None:
    """Nothing is sent: the step after it would never run, and a result would never come."""
    topic = Topic()
    app, task = make_task_on(topic)
    app.conf.update(result_backend="cache+memory://")  # Celery's groups ask their backend

    @app.task(shared=False)
    def other(*_: Any) -> None:
        """Do nothing."""

    def call(*args: Any) -> Any:
        return task.s(*args) if by == "task" else signature(task.name, args, app=app)

    handler = call({"id": 1})
    canvases: dict[str, Callable[[], Any]] = {
        "first": lambda: chain(handler, other.s()),
        "last": lambda: chain(other.s(), call()),
        "group": lambda: group(handler, other.s()),
        "header": lambda: chord([handler, other.s()], other.s()),
        "body": lambda: chord([other.s(), other.s()], call()),
        "clone": lambda: group(handler.clone(), call({"id": 2})),
    }
    canvas = canvases[where]()
    with pytest.raises(PublishRefused, match="can't be part of a chain, group or chord"):
        canvas.apply_async()
    assert topic.messages == []

    handler.apply_async()
    assert len(topic.messages) == 1


@pytest.mark.parametrize(("args", "kwargs"), [((1, 2), {}), ((1,), {"priority_": 3})])
def test_other_arguments_are_refused(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    """A message has data, attributes and a key; a slip of the pen is no silent loss."""
    _, task = make_task_on(Topic())

    with pytest.raises(PublishRefused, match="takes one argument"):
        task.delay(*args, **kwargs)


def test_self_retry_is_refused() -> None:
    """It would publish to every subscriber of the topic."""
    _, task = make_task_on(Topic())

    with pytest.raises(NotImplementedError, match=r"Raise convotic_celery\.Retry"):
        task.retry()


@pytest.mark.parametrize("is_async", [True, False])
def test_calling_the_task_runs_the_handler(is_async: bool) -> None:
    """On plain data, in tests: the message is made up, errors pass through."""
    seen: list[WorkerMessage[Any]] = []

    async def asynchronous(message: Any, ctx: Any) -> None:
        seen.append(message)

    def plain(message: Any, ctx: Any) -> None:
        seen.append(message)

    _, task = make_task_on(Topic(), asynchronous if is_async else plain)

    task({"id": 1}, attributes={"a": "b"})

    assert (seen[0].data, seen[0].attributes, seen[0].attempt) == ({"id": 1}, {"a": "b"}, 1)


def test_an_eager_app_runs_instead_of_publishing() -> None:
    """task_always_eager is Celery's way of testing."""
    seen: list[Any] = []

    async def handler(message: Any, ctx: Any) -> None:
        seen.append(message.data)

    topic = Topic()
    app, task = make_task_on(topic, handler)
    app.conf.task_always_eager = True

    task.delay({"id": 1})

    assert (seen, topic.messages) == ([{"id": 1}], [])


def test_celerys_own_envelope_is_invalid() -> None:
    """A foreign Celery producer sent the handler a task message: there is no raw data in it."""
    _, task = make_task_on(Topic())
    task.push_request(called_directly=False, id="x")

    with pytest.raises(InvalidMessage, match="takes raw messages"):
        task({"id": 1})


def test_inspect_sees_the_options() -> None:
    """max_retries and acks_late are the task's, as for any Celery task."""
    _, task = make_task_on(Topic(), max_retries=7)

    assert isinstance(task, HandlerTask)
    assert (task.max_retries, task.acks_late, task.ignore_result) == (7, True, True)
    assert task.runs_on_loop
