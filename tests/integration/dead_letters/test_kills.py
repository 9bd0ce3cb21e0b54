"""A replay that is killed, at each of its steps: nothing is lost, and the rest can be done."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from convotic_celery.dead_letters import Match
from convotic_pubsub.names import subscription_path
from tests.integration.dead_letters.conftest import SHOP, Desk
from tests.support.faulty import FaultyServer, run_faulty_server
from tests.support.waiting import PATIENCE, wait_until


@contextmanager
def hold(faulty: FaultyServer, method: str) -> Iterator[None]:
    """Let no call of a method through to the emulator in the block, which one call is to reach."""
    before, released = faulty.calls[method], threading.Event()
    faulty.held[method] = released
    try:
        wait_until(lambda: faulty.calls[method] > before, timeout=PATIENCE, what=f"a {method}")
        yield
    finally:
        del faulty.held[method]
        released.set()


def publishing(_: Desk, faulty: FaultyServer, kill: Callable[[], None]) -> None:
    """The messages are on their way."""
    with hold(faulty, "Publish"):
        kill()


def noting(desk: Desk, faulty: FaultyServer, kill: Callable[[], None]) -> None:
    """They are published, and the index does not know it yet: the store writes nothing."""
    store: Any = desk.app.store.sync_client()
    with hold(faulty, "Publish"):
        store.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    try:
        wait_until(lambda: desk.count(desk.spec().subscription) == 4, what="what is published")
        kill()
    finally:
        store.execute_command("CLIENT", "UNPAUSE")


def collecting(_: Desk, faulty: FaultyServer, kill: Callable[[], None]) -> None:
    """What has no copy is pulled, and on its way: it is leased until that ends."""
    with hold(faulty, "Pull"):
        released = threading.Event()
        faulty.held["Publish"] = released
        before = faulty.calls["Publish"]
    wait_until(lambda: faulty.calls["Publish"] > before, timeout=PATIENCE, what="a Publish")
    kill()
    released.set()


def acknowledging(_: Desk, faulty: FaultyServer, kill: Callable[[], None]) -> None:
    """The originals are being acknowledged."""
    with hold(faulty, "Acknowledge"):
        kill()


def shorten_leases(desk: Desk) -> None:
    """Have the messages that a killed process holds come back in 10 s, not in a minute."""
    admin, project = desk.session.admin, desk.session.options.project
    kept = admin.get_subscription(subscription_path(project, desk.spec().dead_letter_topic))
    assert kept is not None
    admin.update_subscription(replace(kept, ack_deadline_seconds=10), ["ack_deadline_seconds"])


@pytest.mark.parametrize("step", [publishing, noting, collecting, acknowledging])
def test_a_replay_that_was_killed_is_done_to_its_end(
    desk: Desk, step: Callable[[Desk, FaultyServer, Callable[[], None]], None]
) -> None:
    """Each is published again, at most twice, with the id by which its handler knows it."""
    ids = [desk.fail({"id": number}) for number in range(4)]
    desk.keep_payloads("none")
    ids += [desk.fail({"id": number}) for number in range(4, 8)]
    shorten_leases(desk)
    job = desk.dead_letters.begin("replay", Match(), by="ada")
    with run_faulty_server(desk.session.broker.address) as faulty:
        environment = os.environ | {"PUBSUB_EMULATOR_HOST": faulty.address}
        command = ["-m", f"{__package__}.replayer", str(desk.app.settings.data_dir), job.id]
        process = subprocess.Popen([sys.executable, *command], env=environment)

        def kill() -> None:
            process.kill()
            process.wait()

        try:
            step(desk, faulty, kill)
        finally:
            kill()
    wait_until(lambda: desk.dead_letters.job(job.id).is_abandoned, timeout=PATIENCE)

    done = desk.dead_letters.resume(job.id)

    assert (done.state, done.done, done.not_found) == ("done", 8, 0)
    assert desk.count_dead() == 0
    times = Counter(message.attributes["convotic-message-id"] for message in desk.pull(SHOP))
    assert times.keys() == set(ids)
    assert set(times.values()) <= {1, 2}
    assert desk.dead_letters.list(Match(state="replayed")).total == 8


def test_a_job_that_was_killed_while_it_chose_has_done_nothing(desk: Desk) -> None:
    """It is over, says why, and another one can be begun."""
    desk.fail({"id": 1})
    job = desk.dead_letters.begin("replay", Match(), by="ada")
    desk.dead_letters._journal.set_state(job, "choosing")

    ended = desk.dead_letters.resume(job.id)

    assert (ended.state, ended.done, ended.error) == (
        "failed",
        0,
        "it died while it was choosing",
    )
    assert desk.dead_letters.replay(Match(), by="ada").done == 1
