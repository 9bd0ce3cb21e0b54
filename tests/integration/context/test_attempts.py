"""The attempt log on a real Valkey."""

from __future__ import annotations

import pytest

from convotic_celery.context import AttemptLog, Attempts, Store


@pytest.fixture
def log(store: Store, key_prefix: str) -> AttemptLog:
    return AttemptLog(store, key_prefix=key_prefix)


async def test_incidents_are_counted_by_kind(log: AttemptLog) -> None:
    """Failures and hand-backs are told apart; nothing recorded is zero of both."""
    assert await log.recall("sub", "1") == (0, 0)

    await log.record("sub", "1", "failure", 60)
    await log.record("sub", "1", "failure", 60)
    await log.record("sub", "1", "hand_back", 60)

    assert await log.recall("sub", "1") == Attempts(failures=2, hand_backs=1)
    assert await log.recall("other", "1") == (0, 0)


async def test_forgotten_message_has_no_history(log: AttemptLog) -> None:
    """Forgetting is idempotent."""
    await log.record("sub", "1", "failure", 60)

    await log.forget("sub", "1")
    await log.forget("sub", "1")

    assert await log.recall("sub", "1") == (0, 0)


async def test_history_has_a_time_to_live(log: AttemptLog, store: Store, key_prefix: str) -> None:
    """What is never forgotten goes by itself."""
    await log.record("sub", "1", "failure", 3600)

    seconds = await store.async_client().ttl(f"{key_prefix}attempts:sub:1")

    assert 3590 < seconds <= 3600
