"""Our strategy does what Celery's does with a raw message; whatever can be seen is compared."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from celery.worker import state, strategy

from convotic_celery.runtime.delivery.payload import PayloadBuilder, register_serializer
from convotic_celery.runtime.worker.request import HandlerRequest
from convotic_celery.runtime.worker.strategy import handler_strategy
from convotic_pubsub.kombu.message import Message
from tests.unit.runtime.support import RecordingEventer, define, make_app, receive


class Consumer(SimpleNamespace):
    """What a strategy uses of Celery's consumer; records what it is given."""

    def __init__(self, **changes: Any) -> None:
        self.seen: list[Any] = []
        super().__init__(
            hostname="unit",
            connection_errors=(OSError,),
            event_dispatcher=RecordingEventer(),
            timer=SimpleNamespace(call_at=None),
            apply_eta_task=None,
            disable_rate_limits=False,
            task_buckets=defaultdict(lambda: None),
            controller=SimpleNamespace(state=state),
            pool=SimpleNamespace(apply_async=None),
            on_task_request=lambda request: self.note("run", request),
            _limit_task=lambda request, _bucket, tokens: self.note("limit", request, tokens),
            _limit_post_eta=None,
        )
        self.__dict__.update(changes)

    __hash__ = object.__hash__  # type: ignore[assignment]  # a signal is sent by it

    def note(self, what: str, request: Any, *more: Any) -> None:
        self.seen.append((what, describe(request), request in state.reserved_requests, *more))


def describe(request: Any) -> Any:
    assert isinstance(request, HandlerRequest)
    shown = {**request.info(), "time_start": None}
    return shown, request.request_dict, request._payload  # type: ignore[attr-defined]


def take(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture, consumer: Consumer, **payload: Any
) -> list[Any]:
    """Give a message to a strategy; return all that can be seen of it."""
    register_serializer()
    definition = define(max_retries=2)
    app = make_app(definition)
    app.uses_utc_timezone()
    task: Any = app.tasks[definition.queue]
    builder = PayloadBuilder.for_queue(definition.queue, definition.subscription)
    raw = {**builder.build(receive(), attempt=2), **payload}
    raw["properties"]["delivery_tag"] = "1"
    channel: Any = SimpleNamespace(decode_body=lambda body, _encoding: body)
    message: Any = Message(raw, channel=channel)
    message.accept = {message.content_type}

    def on_received(request: Any, **_: Any) -> None:
        consumer.note("signal", request)

    caplog.clear()
    state.reset_state()
    signals.task_received.connect(on_received)
    try:
        with caplog.at_level(logging.INFO, strategy.logger.name):
            callback = [lambda request: consumer.note("callback", request)]
            make(task, app, consumer)(message, None, None, None, callback)
    finally:
        signals.task_received.disconnect(on_received)
    eventer = consumer.event_dispatcher
    logged = [
        (r.levelname, r.msg, r.args, r.__dict__["data"])
        for r in caplog.records
        if r.name == strategy.logger.name
    ]
    state.reset_state()
    return [*consumer.seen, eventer and eventer.events, logged]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"event_dispatcher": None},
        {"disable_rate_limits": True, "task_buckets": {"orders.new.shop": object()}},
        {"task_buckets": {"orders.new.shop": object()}},
    ],
    ids=["as usual", "without events", "limits off", "rate limit"],
)
def test_what_becomes_of_a_message_is_the_same(
    caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """The request, its order with signal, event, log line and callbacks, and the token bucket."""
    ours = take(handler_strategy, caplog, Consumer(**changes))
    theirs = take(strategy.default, caplog, Consumer(**changes))

    assert ours == theirs
    assert ours[0][0] == "signal"
    assert ours[-1][0][0] == "INFO"


def test_a_revoked_message_is_not_run(caplog: pytest.LogCaptureFixture) -> None:
    """Its request is notified, and acknowledges it."""
    builder = PayloadBuilder.for_queue("orders.new.shop", "orders.new.shop")
    task_id = builder.build(receive(), attempt=1)["headers"]["id"]
    revoked = SimpleNamespace(state=SimpleNamespace(revoked={task_id}))
    asked: list[Any] = []

    def is_revoked(request: Any) -> bool:
        asked.append(request.id)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HandlerRequest, "revoked", is_revoked)
        seen = take(handler_strategy, caplog, Consumer(controller=revoked))

    assert asked == [task_id]
    assert [each[0] for each in seen[:-2]] == []


def test_a_message_in_celerys_envelope_is_taken_as_celery_takes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It can't be run, but that is for its task to say."""
    envelope = {"content-type": "application/json", "body": b'[[], {}, {"chord": null}]'}
    ours = take(handler_strategy, caplog, Consumer(), **envelope)
    theirs = take(strategy.default, caplog, Consumer(), **envelope)

    assert ours == theirs
    assert ours[0][0] == "signal"
