"""Monitors (Flower, ``celery events``, gossip) outlive bad events, and say why a task is refused.

Patches for ``integrations.py``: each changes one class and returns how to undo it.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any

from convotic_pubsub.celery import event_rules

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_events", "contain_events", "explain_refusals"]

logger = logging.getLogger(__name__)

_BAD_REQUEST = 400


def check_events(_module: Any, receiver: Any) -> Callable[[], None]:
    """Have a receiver drop an event that can't be read or kept; it ended in its consumer's loop.

    One with a timestamp that is no number, say, would spoil what Celery sorts by it.
    """
    read, get_consumers = receiver.event_from_message, receiver.get_consumers

    @functools.wraps(read)
    def read_checked(self: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        if wrong := event_rules.explain(body):
            raise ValueError(f"malformed event: {wrong}")
        return read(self, body, *args, **kwargs)

    @functools.wraps(get_consumers)
    def get_patient_consumers(self: Any, *args: Any, **kwargs: Any) -> Any:
        consumers = get_consumers(self, *args, **kwargs)
        for consumer in consumers:
            consumer.on_decode_error = _drop
        return consumers

    replaced = [
        _replace(receiver, "event_from_message", read_checked),
        _replace(receiver, "_receive", _receive),
        _replace(receiver, "get_consumers", get_patient_consumers),
    ]

    def undo() -> None:
        for each in replaced:
            each()

    return undo


def _receive(receiver: Any, body: Any, message: Any) -> None:
    """Read the events of a message, each by itself, and pass them on."""
    for each in body if isinstance(body, list) else [body]:
        try:
            kind, event = receiver.event_from_message(each)
        except Exception as error:  # noqa: BLE001  whatever is in it, it is one event
            _drop(message, error)
        else:
            receiver.process(kind, event)


def _drop(message: Any, error: Exception) -> None:
    logger.warning(
        "An event is dropped, it can't be read: %s: %s",
        type(error).__name__,
        error,
        extra={"action": "event_invalid", "headers": message.headers},
    )


def contain_events(_module: Any, state: Any) -> Callable[[], None]:
    """Have Flower drop an event that it can't count: its loop would log a traceback for each."""
    take = state.event

    @functools.wraps(take)
    def take_or_log(self: Any, event: Any) -> None:
        try:
            take(self, event)
        except Exception as error:  # noqa: BLE001  whatever is in it, it is one event
            logger.warning(
                "An event of type %s is dropped, it can't be counted: %s: %s",
                event.get("type"),
                type(error).__name__,
                error,
                extra={"action": "event_invalid"},
            )

    return _replace(state, "event", take_or_log)


def explain_refusals(_module: Any, runner: Any) -> Callable[[], None]:
    """Have Flower answer 400 and the reason where a task can't be called like that; it was 500."""
    run = runner.run

    @functools.wraps(run)
    async def run_explained(
        self: Any, operation: str, target: str, function: Any, *args: Any, **kwargs: Any
    ) -> Any:
        refused: list[Exception] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (TypeError, ValueError) as error:
                if operation != "task.publish":
                    raise
                refused.append(error)
                return None

        result = await run(self, operation, target, call, *args, **kwargs)
        if refused:
            web = importlib.import_module("tornado.web")
            raise web.HTTPError(_BAD_REQUEST, "%s", refused[0]) from refused[0]
        return result

    return _replace(runner, "run", run_explained)


def _replace(owner: Any, name: str, new: Any) -> Callable[[], None]:
    old = getattr(owner, name)
    setattr(owner, name, new)
    return lambda: setattr(owner, name, old)
