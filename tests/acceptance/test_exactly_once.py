"""Pub/Sub's exactly-once delivery with a real worker: an acknowledgement counts once confirmed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from convotic_emulator.testing import EmulatorThread
from tests.acceptance.stage import QUEUE, TOPIC, Stage, Worker, make_stage
from tests.support.waiting import wait_until


@pytest.fixture
def stage(tmp_path: Path, data_dir: Path, pubsub_emulator: EmulatorThread) -> Stage:
    """A stage whose subscription has exactly-once delivery, on an emulator that can fail."""
    stage = make_stage(tmp_path, data_dir, pubsub_emulator.address)
    options = {TOPIC: {"enable_exactly_once_delivery": True}}
    stage.environment["CONVOTIC_HANDLER_OPTIONS"] = json.dumps(options)
    return stage


@pytest.fixture
def worker(stage: Stage) -> Iterator[Worker]:
    """A worker that acknowledges nothing but the test's messages."""
    with stage.worker("--without-gossip", "--without-mingle", "--without-heartbeat") as worker:
        yield worker


def test_an_unconfirmed_acknowledgement_is_sent_until_it_is_confirmed(
    stage: Stage, worker: Worker, pubsub_emulator: EmulatorThread
) -> None:
    """Two are answered UNAVAILABLE: the third removes the message, which has run once."""
    subscription = f"projects/{stage.project}/subscriptions/{QUEUE}"
    pubsub_emulator.faults.lose_acks(2, subscription)
    stage.publish_json({"id": 1})

    wait_until(lambda: stage.read_runs("end"))
    wait_until(lambda: not pubsub_emulator.count(subscription))

    assert not pubsub_emulator.faults.take_lost_ack(subscription)
    assert len(stage.read_runs()) == 1
    assert "not confirmed" not in worker.read_log()


def test_a_message_whose_acknowledgement_failed_comes_again(
    stage: Stage, worker: Worker, pubsub_emulator: EmulatorThread
) -> None:
    """Refused for good: the log says so, and the message is neither lost nor stuck."""
    subscription = f"projects/{stage.project}/subscriptions/{QUEUE}"
    stage.publish_json({"id": 1, "until": "denied"})
    wait_until(stage.read_runs)
    pubsub_emulator.faults.deny(subscription)
    (stage.folder / "denied").touch()
    wait_until(lambda: "Acknowledgement not confirmed" in worker.read_log())
    pubsub_emulator.faults.allow(subscription)
    assert pubsub_emulator.count(subscription) == 1

    pubsub_emulator.advance(60)  # its lease is over

    wait_until(lambda: len(stage.read_runs("end")) == 2)
    wait_until(lambda: not pubsub_emulator.count(subscription))
