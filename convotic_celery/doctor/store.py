"""The store: does it answer, is its data safe, and is its clock right?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from convotic_celery.doctor.finding import Finding

if TYPE_CHECKING:
    from convotic_celery.context.store import Store

__all__ = ["check_store", "judge_clock", "judge_store"]

_OLDEST: Final = (6, 2)
_SKEW_SECONDS: Final = 1.0
#: From this share of its memory on, keys that expire are about to be evicted: locks and counts.
_FULL: Final = 0.8


def check_store(store: Store) -> Iterator[Finding]:
    """Ask the store about itself.

    Raises:
        ContextError: The embedded store can't be started.
    """
    try:
        client = store.sync_client()
        before = time.time()
        seconds, micros = client.time()
        after = time.time()
        info: Any = client.info()
    except (RedisError, OSError) as error:
        yield Finding(
            "store",
            "error",
            f"it does not answer: {error}",
            "start it, or correct CONVOTIC_REDIS_URL",
        )
        return
    yield from judge_clock(float(seconds) + float(micros) / 1e6, before, after)
    yield from judge_store(info)


def judge_clock(theirs: float, before: float, after: float) -> Iterator[Finding]:
    """Compare the store's clock with this machine's, in seconds since 1970. Pure."""
    skew = theirs - min(max(theirs, before), after)
    if abs(skew) <= _SKEW_SECONDS:
        yield Finding("clock", "ok", f"the store's and this one differ by {abs(skew):.1f} s")
        return
    yield Finding(
        "clock",
        "warning",
        f"the store's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this "
        "machine's: delayed messages come early or late, and ages are wrong",
        "synchronise the clocks (chrony, systemd-timesyncd)",
    )


def judge_store(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge what ``INFO`` says. Pure."""
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "?"))
    problems = [*_judge_version(info), *_judge_persistence(info), *_judge_memory(info)]
    if info.get("role", "master") != "master":
        problems.append(
            Finding(
                "store",
                "error",
                "it is a replica, which refuses writes",
                "set CONVOTIC_REDIS_URL to the primary",
            )
        )
    yield from problems
    if not problems:
        yield Finding("store", "ok", f"{name} {version}, keeps its data, evicts nothing")


def _judge_version(info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < _OLDEST:
        yield Finding(
            "store", "error", f"Redis {version} is too old", "Redis 6.2 or newer, or any Valkey"
        )


def _judge_persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            yield Finding(
                "store",
                "error",
                "its last write to the append-only file failed: it refuses writes, or loses them",
                "look at its disk and its log",
            )
        return
    saves = info.get("rdb_last_save_time") and info.get("rdb_saves", 1)
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding(
            "store", "error", "its last snapshot failed (bgsave)", "look at its disk and its log"
        )
    text = "it keeps its data only in snapshots (RDB), if at all" if saves else "it keeps no data"
    yield Finding(
        "store",
        "warning",
        f"{text}: after a crash, delayed messages, workflow runs and counts of attempts of the "
        "last minutes are gone",
        "CONFIG SET appendonly yes (Memorystore: AOF persistence)",
    )


def _judge_memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield Finding(
            "store",
            "error" if limit else "warning",
            f"maxmemory-policy is {policy}: when it is full it drops delayed messages, locks and "
            "counts, silently",
            "CONFIG SET maxmemory-policy noeviction",
        )
    used = int(info.get("used_memory", 0))
    if limit and used > _FULL * limit:
        yield Finding(
            "store",
            "warning",
            f"{used / limit:.0%} of its memory is used; when it is full it refuses writes",
            "give it more memory",
        )
