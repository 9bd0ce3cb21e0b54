"""``from convotic_celery import pubsub`` against the embedded emulator, as a script uses it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, _state

from convotic_celery import pubsub
from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.errors import PublishManyFailed, PublishRefused
from convotic_celery.settings import Settings
from convotic_pubsub.registry import session_for
from tests.support.orphans import end_emulator

MODULE = """
from convotic_celery import ConvoticModule

module = ConvoticModule(name="shop", version="1")


@module.worker("custom.orders.new")
async def process_order(message, ctx): ...
"""


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (data_dir / "modules").mkdir()
    # A name of its own: Python imports each module once.
    (data_dir / "modules" / f"shop_{uuid.uuid4().hex}.py").write_text(MODULE)
    return Settings(data_dir=data_dir, modules_dir=data_dir / "modules", emulator_idle_timeout=5)


@pytest.fixture
def app(settings: Settings) -> Iterator[ConvoticApp]:
    app = create_app(settings, set_as_current=False)
    pubsub.use(app)
    yield app
    pubsub.use(None)
    app.store.close()
    session_for(*app._broker_parameters()).close()


async def test_publish_is_confirmed(app: ConvoticApp) -> None:
    """Plain and async; the known handler's subscription exists before the first message."""
    first = pubsub.publish("custom.orders.new", data={"id": 1}, attributes={"source": "script"})
    second = await pubsub.apublish("custom.orders.new", {"data": {"id": 2}})

    assert first
    assert second
    assert first != second
    assert app.services.publisher is app.publisher


async def test_many_are_confirmed(app: ConvoticApp) -> None:
    """More than one request takes; ids are distinct."""
    del app
    messages = [{"data": {"id": n}} for n in range(1_200)]

    ids = pubsub.publish_many("custom.orders.new", messages)
    more = await pubsub.apublish_many("custom.orders.new", messages[:3])

    assert len({*ids, *more}) == 1_203


async def test_topic_without_subscription_is_told(app: ConvoticApp) -> None:
    """The message would vanish."""
    del app
    with pytest.raises(PublishRefused, match=r"no known handler subscribes"):
        await pubsub.apublish("custom.nobody", data=1)
    with pytest.raises(PublishManyFailed, match=r"no known handler subscribes"):
        pubsub.publish_many("custom.nobody", [{"data": 1}, {"data": 2}])


def test_callers_own_celery_app_stays_current(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a Django project with Celery on Redis."""
    monkeypatch.setenv("CONVOTIC_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CONVOTIC_MODULES_DIR", str(settings.modules_dir))
    own = Celery("own")
    own.set_current()
    try:
        assert pubsub.publish("custom.orders.new", data={"id": 1})
        assert _state.get_current_app() is own
        found = pubsub._find_app()
        session_for(*found._broker_parameters()).close()
    finally:
        pubsub.use(None)


def test_workers_app_is_used() -> None:
    """Any task of a worker publishes through the worker's own session."""
    app = ConvoticApp(Settings(modules=[], broker_url="pubsub://p"), [])
    pubsub.use(None)
    try:
        app.set_current()
        assert pubsub._find_app() is app
    finally:
        pubsub.use(None)
        Celery("other").set_current()


SCRIPT = """
from convotic_celery import pubsub

print(pubsub.publish("custom.orders.new", data={"id": 1}))
"""

DJANGO = """
import json

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path

from convotic_celery import pubsub


def create_order(request: HttpRequest) -> JsonResponse:
    message_id = pubsub.publish("custom.orders.new", data=json.loads(request.body))
    return JsonResponse({"message_id": message_id}, status=202)


async def create_order_async(request: HttpRequest) -> JsonResponse:
    message_id = await pubsub.apublish("custom.orders.new", data=json.loads(request.body))
    return JsonResponse({"message_id": message_id}, status=202)


urlpatterns = [path("plain", create_order), path("async", create_order_async)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
django.setup()
for url in ("/plain", "/async"):
    answer = Client().post(url, {"id": 1}, content_type="application/json")
    assert answer.status_code == 202
    print(answer.json()["message_id"])
"""

FASTAPI = """
import asyncio

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

from convotic_celery import pubsub

app = FastAPI()


class Order(BaseModel):
    id: int


@app.post("/plain", status_code=202)
def create_order(order: Order) -> dict[str, str]:
    return {"message_id": pubsub.publish("custom.orders.new", data=order)}


@app.post("/async", status_code=202)
async def create_order_async(order: Order) -> dict[str, str]:
    return {"message_id": await pubsub.apublish("custom.orders.new", data=order)}


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for url in ("/plain", "/async"):
            answer = await client.post(url, json={"id": 1})
            assert answer.status_code == 202
            print(answer.json()["message_id"])


asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("code", "published"),
    [(SCRIPT, 1), (DJANGO, 2), (FASTAPI, 2)],
    ids=["plain", "django", "fastapi"],
)
def test_script_publishes(settings: Settings, code: str, published: int) -> None:
    """In a process of its own, configured by the environment; in views of Django and FastAPI."""
    environment = {
        "CONVOTIC_DATA_DIR": str(settings.data_dir),
        "CONVOTIC_MODULES_DIR": str(settings.modules_dir),
    }

    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    end_emulator(settings.data_dir)
    assert result.returncode == 0, result.stderr
    assert len(set(result.stdout.split())) == published
    lines = result.stderr.splitlines()
    assert [each for each in lines if not each.startswith("Starting the embedded servers")] == []


async def test_delayed_message_can_be_cancelled(app: ConvoticApp) -> None:
    """Plain and async are one schedule; the store is the folder's own, started when needed."""
    first = pubsub.publish("custom.orders.new", data={"id": 1}, delay=3600)
    second = await pubsub.apublish("custom.orders.new", data={"id": 2}, delay=3600)
    many = pubsub.publish_many("custom.orders.new", [{"data": {"id": 3}}], delay=3600)
    more = await pubsub.apublish_many("custom.orders.new", [{"data": {"id": 4}}], delay=3600)

    assert await pubsub.acancel(first)
    assert pubsub.cancel(second)
    assert not pubsub.cancel(second)
    assert [pubsub.cancel(schedule_id) for schedule_id in [*many, *more]] == [True, True]
    await app.store.aclose()


def test_command_delays(settings: Settings, app: ConvoticApp) -> None:
    """It prints the schedule id, by which the message is taken back."""
    del app
    environment = {
        "CONVOTIC_DATA_DIR": str(settings.data_dir),
        "CONVOTIC_MODULES_DIR": str(settings.modules_dir),
    }
    command = [sys.executable, "-m", "convotic_celery.cli", "publish", "custom.orders.new", "{}"]

    result = subprocess.run(
        [*command, "--delay", "3600"], env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert pubsub.cancel(result.stdout.strip())
