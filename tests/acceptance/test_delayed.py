"""Delayed messages and announcements, moved by real workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.context import Delivery
from convotic_celery.settings import Settings
from convotic_pubsub.registry import session_for
from tests.acceptance.stage import TOPIC, Stage
from tests.support.faulty import run_faulty_server
from tests.support.waiting import PATIENCE, wait_until

#: Handles what ``messages.send`` announces.
LISTENER = '''
"""Handler of the announcements."""

import json
import os
from pathlib import Path

from convotic_celery import ConvoticContext, ConvoticModule, Message, WorkerMessage

module = ConvoticModule(name="listener", version="1.0.0")


@module.worker("messages.sent")
async def on_sent(message: WorkerMessage[Message], ctx: ConvoticContext) -> None:
    with Path(os.environ["CONVOTIC_TEST_RECORD"]).open("a") as file:
        file.write(json.dumps({"what": "sent", "text": message.data.text}) + "\\n")
'''


@pytest.fixture
def app(embedded_stage: Stage) -> Iterator[ConvoticApp]:
    """A process beside the workers that keeps and sends, and moves nothing: this one."""
    settings = Settings(data_dir=embedded_stage.data_dir, modules=[])
    app = create_app(settings, set_as_current=False)
    yield app
    app.store.close()
    session_for(*app._broker_parameters()).close()


def published_ids(stage: Stage) -> list[Any]:
    """Return the orders that arrived, in order."""
    return [run["data"]["id"] for run in stage.read_runs()]


def test_delayed_message_arrives_when_it_is_due(embedded_stage: Stage, app: ConvoticApp) -> None:
    """Not before, and soon after; a cancelled one never; an announcement at once."""
    (embedded_stage.folder / "modules" / "listener.py").write_text(LISTENER)
    pubsub = app.services.sync_pubsub()
    ctx = app.services.sync_context(Delivery(handler="h", topic="t", message_id="1"))
    with embedded_stage.worker() as worker:
        before = time.time()
        pubsub.publish(TOPIC, data={"id": "due"}, delay=2)
        later = pubsub.publish(TOPIC, data={"id": "last"}, delay=9)
        cancelled = pubsub.publish(TOPIC, data={"id": "cancelled"}, delay=8)
        assert pubsub.cancel(cancelled)
        conversation = ctx.conversations.create(ctx.contacts.create().id)
        ctx.messages.send(conversation.id, text="Hello", idempotency_key="k")
        ctx.messages.send(conversation.id, text="Hello", idempotency_key="k")

        wait_until(lambda: len(embedded_stage.read_runs("end")) == 2)
        wait_until(lambda: embedded_stage.read_runs("sent"))

        assert not pubsub.cancel(later)
        assert published_ids(embedded_stage) == ["due", "last"]
        assert [sent["text"] for sent in embedded_stage.read_runs("sent")] == ["Hello"]
        due, _ = embedded_stage.read_runs()
        assert 2 <= due["at"] - before < 2 + PATIENCE
        worker.child.terminate()
        assert worker.child.wait(PATIENCE) == 0
    assert "Delayed messages" not in worker.read_log()


@pytest.mark.crash(
    12,
    "the worker, after it took a delayed message and before that is published",
    lost="nothing",
    repeated="perhaps the message",
)
def test_killed_workers_message_is_published_by_another(
    embedded_stage: Stage, app: ConvoticApp
) -> None:
    """kill -9 between taking and publishing loses nothing."""
    with (
        run_faulty_server(embedded_stage.address) as faulty,
        embedded_stage.worker(PUBSUB_EMULATOR_HOST=faulty.address) as worker,
    ):
        faulty.faults["Publish"] = (grpc.StatusCode.UNAVAILABLE, "not now")
        calls = faulty.calls["Publish"]
        app.services.sync_pubsub().publish(TOPIC, data={"id": 1}, delay=0)
        keys = app.services.sync_schedule._keys.scheduled("*")
        client = app.store.sync_client()
        wait_until(
            lambda: any(client.hget(key, "claim") for key in client.scan_iter(keys)),
            what="a worker has taken the message",
        )
        wait_until(lambda: faulty.calls["Publish"] > calls)
        worker.child.kill()
    assert published_ids(embedded_stage) == []

    with embedded_stage.worker():
        wait_until(lambda: embedded_stage.read_runs("end"))

    assert published_ids(embedded_stage) == [1]
