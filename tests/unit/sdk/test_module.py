"""Modules and their handlers: both ways to register, and what is checked at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from convotic_celery.errors import DuplicateHandler, HandlerSignatureError, ModuleError
from convotic_celery.sdk import (
    ConvoticModule,
    DeadLetter,
    Drop,
    Retry,
    Sdk,
    WorkerMessage,
    WorkerOptions,
)


class NotForPydantic:
    pass


async def handle(message: WorkerMessage, ctx: Any) -> None: ...


def test_decorated_handler_is_collected_and_left_alone() -> None:
    """The function stays what it was, so that it can be called in tests."""
    module = ConvoticModule(name="order-processor", version="1.2.3")

    decorated = module.worker("custom.orders.new", max_retries=3, ack_deadline=60)(handle)

    (handler,) = module.collect_handlers()
    assert decorated is handle
    assert (handler.module, handler.module_version) == ("order-processor", "1.2.3")
    assert handler.queue == handler.subscription == "custom.orders.new.order-processor"
    assert handler.dead_letter_topic == "custom.orders.new.order-processor.dead-letter"
    assert handler.options == WorkerOptions(max_retries=3, ack_deadline=60)
    assert handler.is_async


def test_registered_handler_is_collected_each_time() -> None:
    """The register function is called again and nothing is doubled."""

    def register(sdk: Sdk) -> None:
        sdk.register_worker_handler(
            topic="custom.orders.new", options={"maxRetries": 3}, handler=handle
        )

    module = ConvoticModule(name="crm", version="1", register=register)

    assert module.collect_handlers() == module.collect_handlers()
    assert module.collect_handlers()[0].options.max_retries == 3


def test_second_handler_of_a_topic_needs_a_name() -> None:
    """The name becomes the last part of the queue."""
    module = ConvoticModule("crm", "1")
    module.worker("custom.a")(handle)
    module.worker("custom.a", name="audit")(handle)

    with pytest.raises(DuplicateHandler, match=r"already has a handler .* name='\.\.\.'"):
        module.worker("custom.a")(handle)

    queues = [handler.queue for handler in module.collect_handlers()]
    assert queues == ["custom.a.crm", "custom.a.crm.audit"]


def test_existing_resources_can_be_named() -> None:
    """The queue keeps its name."""
    module = ConvoticModule("crm", "1")
    module.worker("custom.a", subscription="old-sub", dead_letter_topic="old-dead")(handle)

    (handler,) = module.collect_handlers()

    assert (handler.queue, handler.subscription) == ("custom.a.crm", "old-sub")
    assert handler.dead_letter_topic == "old-dead"


@pytest.mark.parametrize(
    ("topic", "options", "reason"),
    [
        ("ab c", {}, "topic 'ab c'"),
        ("google", {}, "topic 'google'"),
        ("custom.a", {"subscription": "x"}, "subscription 'x'"),
        ("custom.a", {"dead_letter_topic": "goog-x"}, "dead-letter topic 'goog-x'"),
        ("a" * 252, {}, "subscription 'a"),
        ("a" * 240, {}, "dead-letter topic 'a"),
        ("a" * 200, {}, "Pub/Sub allows 256"),
        ("custom.a", {"filter": "x" * 200}, "shorten the filter option"),
        ("custom.a", {"max_retries": 100}, "max_retries must be at most 99"),
        ("custom.a", {"max_retires": 1}, "did you mean 'max_retries'"),
        ("custom.a", {"max_retires": 1, "ackDeadlin": 1}, "'max_retries'.*'ack_deadline'"),
        ("custom.a", {"ack_deadline": timedelta(days=2)}, "ack_deadline must be at most 86400"),
    ],
)
def test_rule_that_is_broken_is_named(topic: str, options: dict[str, Any], reason: str) -> None:
    """Registration fails at once, not the first message."""
    with pytest.raises(ModuleError, match=reason):
        ConvoticModule("crm", "1").worker(topic, **options)(handle)


def test_payload_that_cant_be_validated_is_refused() -> None:
    """A class without a schema is an error when it is registered, in one line."""

    async def wrong(message: WorkerMessage[NotForPydantic], ctx: Any) -> None: ...

    with pytest.raises(HandlerSignatureError, match=r"can't be validated as .*NotFor") as raised:
        ConvoticModule("crm", "1").worker("custom.a")(wrong)
    assert "\n" not in str(raised.value)


def test_definition_with_other_options_is_checked_again() -> None:
    """Names and filter follow the options."""
    module = ConvoticModule("crm", "1")
    module.worker("custom.a")(handle)
    (handler,) = module.collect_handlers()

    changed = handler.with_options(handler.options.replace(filter="attributes:x"))

    assert changed.filter_expression.startswith("(attributes:x) AND (NOT")
    with pytest.raises(ModuleError):
        handler.with_options(handler.options.replace(subscription="x"))


def test_outcomes_say_what_they_mean() -> None:
    """Delay in seconds, reason as text."""
    assert Retry(timedelta(minutes=1), "busy").delay == 60
    assert str(Retry(60, "busy")) == "retry in 60 s: busy"
    assert str(Retry()) == "retry"
    assert str(DeadLetter("no such shop")) == DeadLetter("no such shop").reason == "no such shop"
    assert Drop("too old").reason == "too old"


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
def test_retry_needs_a_delay_that_can_be_waited(delay: float) -> None:
    """A wrong delay is an error where it is made."""
    with pytest.raises(ValueError, match="non-negative number of seconds"):
        Retry(delay)
