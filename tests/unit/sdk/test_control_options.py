"""Options of control, middleware: what is refused when a handler registers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from convotic_celery import (
    ConvoticModule,
    DeadLettered,
    Sdk,
    WorkerMessage,
    WorkerMiddleware,
    WorkerOptions,
)
from convotic_celery.errors import ModuleError
from convotic_celery.sdk.rate import parse_rate


@pytest.mark.parametrize(
    ("rate", "a_second"), [("10/s", 10), ("90/m", 1.5), ("3600 / h", 1), (2, 2), ("0.5", 0.5)]
)
def test_rates(rate: Any, a_second: float) -> None:
    """As Celery writes them."""
    assert parse_rate(rate) == a_second


@pytest.mark.parametrize("rate", ["10/d", "fast", "0/s", 0, "-1/s"])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    """With the form."""
    with pytest.raises(ValidationError, match="is not a rate"):
        WorkerOptions(rate_limit=rate)


@pytest.mark.parametrize("given", ["NoSuchError", "int", "no.such.module.Error", 7])
def test_what_is_no_error_is_refused(given: Any) -> None:
    """A slip of the pen would retry nothing, or everything."""
    with pytest.raises(ValidationError, match=r"not an exception class|can't be imported"):
        WorkerOptions(retry_on=given)


def test_a_lease_shorter_than_the_deadline_is_refused() -> None:
    """It could only be a slip of the pen."""
    with pytest.raises(ValidationError, match="less than ack_deadline"):
        WorkerOptions(ack_deadline=60, max_lease_duration=30)


def test_the_longer_of_deadline_and_lease_limits_a_run() -> None:
    """Without max_lease_duration it is the ack deadline."""
    assert WorkerOptions(ack_deadline=60).run_limit == 60
    assert WorkerOptions(ack_deadline=60, max_lease_duration=90).run_limit == 90


def test_a_key_allows_more_deliveries() -> None:
    """Each postponement is one to Pub/Sub, which must not give the message up for it."""
    assert WorkerOptions().max_delivery_attempts == 18
    assert WorkerOptions(deduplicate="message.id").max_delivery_attempts == 100


class AsyncHook(WorkerMiddleware):
    """Has a hook that must be awaited."""

    async def before(self, message: WorkerMessage[Any], ctx: Any) -> None: ...


def plain(message: WorkerMessage[Any], ctx: Any) -> None: ...


def test_async_middleware_of_a_plain_handler_is_refused() -> None:
    """It would not be awaited."""
    module = ConvoticModule(name="shop", version="1", middleware=[AsyncHook()])
    module.worker("orders")(plain)

    with pytest.raises(ModuleError, match=r"AsyncHook\.before is async"):
        module.collect()


def test_what_is_no_middleware_is_refused() -> None:
    """A class instead of an object, most likely."""
    module = ConvoticModule(name="shop", version="1")

    with pytest.raises(ModuleError, match="neither a WorkerMiddleware nor a RouteMiddleware"):
        module.use(AsyncHook)  # type: ignore[arg-type]  # that is the slip


def test_an_async_hook_of_a_plain_handler_is_refused() -> None:
    """on_dead_letter runs where the handler does."""
    module = ConvoticModule(name="shop", version="1")

    async def tell(dead: DeadLettered, ctx: Any) -> None: ...

    with pytest.raises(ModuleError, match="on_dead_letter a plain def"):
        module.worker("orders", on_dead_letter=tell)(plain)


def test_a_register_function_may_use_middleware() -> None:
    """It surrounds all handlers of the module, whichever way they registered."""

    class Plain(WorkerMiddleware):
        pass

    first, second = Plain(), Plain()

    def register(sdk: Sdk) -> None:
        sdk.register_worker_handler(topic="other", handler=plain)
        sdk.use(second)

    module = ConvoticModule(name="shop", version="1", register=register, middleware=[first])
    module.worker("orders")(plain)

    assert [handler.middleware for handler in module.collect_handlers()] == [(first, second)] * 2


def test_without_middleware_the_handler_is_called_itself() -> None:
    """Nothing is added to the hot path."""
    module = ConvoticModule(name="shop", version="1")
    module.worker("orders")(plain)

    assert module.collect_handlers()[0].call is plain
