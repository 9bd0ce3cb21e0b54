"""What the store knows about a message's runs: AttemptLog on a real Valkey, also a broken one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from convotic_celery.context.store import Store
from convotic_celery.runtime.delivery.attempts import AttemptLog, Attempts, RunName
from convotic_celery.runtime.delivery.steps import drive_sync
from convotic_celery.runtime.locks.key_lock import KeyStore
from tests.support.valkey import ValkeyOnSocket, run_valkey
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyOnSocket]:
    with run_valkey() as server:
        yield server


class Log:
    """An attempt log and the store behind it; drives the steps as a run in a thread does."""

    def __init__(self, server: ValkeyOnSocket) -> None:
        self.prefix = f"test-{uuid.uuid4().hex[:8]}:"
        self.store = Store(server.url, timeout_seconds=10)
        self.keys = KeyStore(self.store, key_prefix=self.prefix)
        self.attempts = AttemptLog(self.store, key_prefix=self.prefix)
        self.admin: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def begin(self, run: str, message_id: str = "1") -> Attempts | None:
        return drive_sync(self.attempts.begin(name(run, message_id)), self.keys)

    def end(self, run: str, end: Any, last: str = '["max-retries-exceeded", "E", "no"]') -> bool:
        return drive_sync(self.attempts.end(name(run), end, last), self.keys)

    def fields(self) -> dict[str, str]:
        found: dict[str, str] = self.admin.hgetall(f"{self.prefix}attempts:sub:1")
        return found


def name(run: str, message_id: str = "1") -> RunName:
    return RunName("sub", message_id, run, 60)


@pytest.fixture
def log(server: ValkeyOnSocket) -> Iterator[Log]:
    log = Log(server)
    yield log
    log.store.close()
    log.admin.close()


def test_a_begin_without_an_end_is_a_loss(log: Log) -> None:
    """Each other way to end leaves none."""
    assert log.begin("killed") == Attempts()
    assert log.begin("failing") == Attempts(losses=1)
    log.end("failing", "failure")
    assert log.begin("waiting") == Attempts(1, 1, ("max-retries-exceeded", "E", "no"))
    log.end("waiting", "unrun")

    assert log.begin("next") == Attempts(1, 1, ("max-retries-exceeded", "E", "no"))


def test_what_is_repeated_counts_once(log: Log) -> None:
    """The client repeats a call whose answer was lost."""
    for _ in range(3):
        log.begin("one")
        log.end("one", "failure")
        log.end("other", "loss")

    found = log.begin("next")

    assert found is not None
    assert (found.failures, found.losses) == (1, 1)


def test_a_success_forgets(log: Log) -> None:
    """A later delivery begins at zero; forgetting twice is fine."""
    log.begin("one")
    for _ in range(2):
        drive_sync(log.attempts.forget(name("one")), log.keys)

    assert log.fields() == {}
    assert log.begin("next") == Attempts()


def test_history_has_a_time_to_live(log: Log) -> None:
    """Counts never outlive what Pub/Sub keeps: each run renews the time to live."""
    log.begin("one")

    assert 0 < log.admin.ttl(f"{log.prefix}attempts:sub:1") <= 60


def break_store(admin: Any, how: str) -> None:
    if how == "READONLY":
        admin.replicaof("127.0.0.1", 1)
    elif how == "MASTERDOWN":
        admin.config_set("replica-serve-stale-data", "no")
        admin.replicaof("127.0.0.1", 1)
    elif how == "OOM":
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
    elif how == "NOAUTH":
        admin.config_set("requirepass", "secret")
        admin.client_kill_filter(_type="normal", skipme=True)  # what is connected stays allowed


def mend_store(admin: Any) -> None:
    admin.config_set("requirepass", "")
    admin.replicaof("NO", "ONE")
    admin.config_set("replica-serve-stale-data", "yes")
    admin.config_set("maxmemory", "0")


@pytest.mark.parametrize("how", ["READONLY", "OOM", "MASTERDOWN", "NOAUTH"])
def test_a_store_that_answers_with_an_error_is_unavailable(
    log: Log, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Beginnings are unknown, failures are kept and written when it answers again; logged once."""
    log.begin("before")
    log.end("before", "failure")
    caplog.set_level(logging.INFO)
    break_store(log.admin, how)
    try:
        assert log.begin("first") is None
        assert log.begin("second") is None
        assert not log.end("second", "failure")
        log.attempts.end_later(name("second"), "failure", '["max-retries-exceeded", "E", "2"]')
        log.attempts.end_later(name("third"), "failure", '["max-retries-exceeded", "E", "3"]')
        assert log.attempts.known_failures("sub", "1") == 2
        assert log.attempts.known_failures("sub", "2") == 0
    finally:
        mend_store(log.admin)

    wait_until(lambda: not log.attempts.known_failures("sub", "1"))
    found = wait_until(lambda: log.begin("next"))
    assert found is not None
    assert (found.failures, found.losses) == (3, 0)

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name.endswith(".attempts")]

    wait_until(lambda: "answers again" in said()[-1])  # said once the counts are written
    assert len(said()) == 2, said()
    assert how in said()[0]
