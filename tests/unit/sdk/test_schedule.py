"""Schedules are checked when they are registered, and beat gets them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery.schedules import crontab

from convotic_celery import ConvoticModule, Sdk
from convotic_celery.app import ConvoticApp
from convotic_celery.errors import ModuleError
from convotic_celery.settings import Settings


async def nightly(message: Any, ctx: Any) -> None:
    """Clean up."""


def make_app(module: ConvoticModule) -> ConvoticApp:
    settings = Settings(modules=[], broker_url="pubsub://p", redis_url="redis://127.0.0.1:1")
    sdk = module.collect()
    return ConvoticApp(settings, sdk.handlers, schedules=sdk.schedules, set_as_current=False)


def test_beat_runs_a_handler() -> None:
    """It is one as any other, with a topic of its own and its options; called by beat."""
    module = ConvoticModule("shop", "1")
    module.schedule("0 3 * * mon", max_retries=7, data={"deep": True})(nightly)

    app = make_app(module)

    (handler,) = app.definitions
    assert (handler.queue, handler.options.max_retries) == ("schedule.nightly.shop", 7)
    assert app.conf.beat_schedule == {
        "shop.nightly": {
            "task": "schedule.nightly.shop",
            "schedule": crontab("0", "3", day_of_week="mon"),
            "args": ({"deep": True},),
            "kwargs": {"attributes": {"schedule": "shop.nightly"}},
        }
    }
    assert "schedule.nightly.shop" in app.tasks


def test_beat_publishes_to_a_topic() -> None:
    """Nothing runs a task for it: the entry's task publishes where it is called."""
    module = ConvoticModule("shop", "1")
    module.schedule(every=timedelta(minutes=5), topic="custom.tick", attributes={"a": "b"})

    app = make_app(module)

    assert app.conf.beat_schedule == {
        "shop.custom.tick": {
            "task": "convotic.publish",
            "schedule": timedelta(minutes=5),
            "args": ("custom.tick", None),
            "kwargs": {"attributes": {"schedule": "shop.custom.tick", "a": "b"}},
        }
    }
    assert "convotic.publish" in app.tasks
    assert module.collect().schedules[0].when == "every 300 s"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "it needs a cron expression"),
        ({"cron": "0 3 * * *", "every": 5}, "it needs a cron expression"),
        ({"cron": "0 3 * *"}, "five fields"),
        ({"cron": "61 3 * * *"}, "five fields"),
        ({"cron": "every day"}, "five fields"),
        ({"every": 0.5}, "at least 1"),
        ({"every": float("nan")}, "at least 1"),
        ({"every": "5 min"}, "at least 1"),
        ({"every": 5, "topic": "no topic"}, "is not a valid name"),
        ({"every": 5, "data": object()}, "JSON"),
        ({"every": 5, "name": "two words"}, "schedule name"),
        ({"every": 5, "topic": "custom.tick", "max_retries": 1}, "has no options max_retries"),
        ({"every": 5, "max_retires": 1}, "did you mean 'max_retries'"),
    ],
)
def test_what_can_t_be_is_refused(given: dict[str, Any], reason: str) -> None:
    """When the module is loaded, with the rule."""
    module = ConvoticModule("shop", "1")

    with pytest.raises(ModuleError, match=reason):
        module.schedule(**given)(nightly)


def test_a_decorator_without_its_call_is_refused() -> None:
    """As of handlers."""
    with pytest.raises(ModuleError, match="the first argument is the cron expression"):
        ConvoticModule("shop", "1").schedule(nightly)  # type: ignore[call-overload]  # the point


def test_names_are_unique_in_a_module() -> None:
    """Also between decorators and the register function."""

    def register(sdk: Sdk) -> None:
        sdk.register_schedule(every=5, topic="custom.tick")

    module = ConvoticModule("shop", "1", register)
    module.schedule(every=7, topic="custom.tick")

    with pytest.raises(ModuleError, match=r"already has a schedule .custom\.tick."):
        module.collect()
