"""What is done to the parts. Each fault is a block: it holds inside, and is mended behind it."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TypeAlias

import psutil
import redis

from tests.chaos.world import World
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

__all__ = ["FAULTS", "Fault"]

Fault: TypeAlias = Callable[[World], Iterator[None]]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


# -- processes ------------------------------------------------------------------------------------


@fault
def worker_killed(world: World) -> Iterator[None]:
    world.kill_worker(random.randrange(len(world.workers)))
    yield


@fault
def worker_stopped_warm(world: World) -> Iterator[None]:
    world.replace_worker(random.randrange(len(world.workers)), signal.SIGTERM)
    yield


@fault
def worker_frozen(world: World) -> Iterator[None]:
    """SIGSTOP, for longer than a lease if the fault is long enough."""
    with _frozen(world.worker_process(random.randrange(len(world.workers)))):
        yield


@fault
def broker_killed(world: World) -> Iterator[None]:
    world.kill_broker()
    yield


@fault
def broker_frozen(world: World) -> Iterator[None]:
    with _frozen(psutil.Process(world.broker.pid)):
        yield


@fault
def store_killed(world: World) -> Iterator[None]:
    world.kill_store()
    yield


@fault
def store_frozen(world: World) -> Iterator[None]:
    with _frozen(psutil.Process(world.store.pid)):
        yield


@contextmanager
def _frozen(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@fault
def worker_out_of_descriptors(world: World) -> Iterator[None]:
    number = random.randrange(len(world.workers))
    world.wait_until_ready(number)  # one that still imports what it needs would end
    process = world.worker_process(number)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), limits[1]))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_NOFILE, limits)


# -- networks -------------------------------------------------------------------------------------


def _network(name: str, proxy_of: Callable[[World], Proxy]) -> None:
    def reset(world: World) -> Iterator[None]:
        proxy_of(world).reset()
        yield

    def half_open(world: World) -> Iterator[None]:
        proxy_of(world).silence()
        yield

    def refused(world: World) -> Iterator[None]:
        proxy_of(world).refuse()
        try:
            yield
        finally:
            proxy_of(world).resume()

    def black_hole(world: World) -> Iterator[None]:
        proxy_of(world).pause()
        try:
            yield
        finally:
            proxy_of(world).resume()

    def far_away(world: World) -> Iterator[None]:
        proxy_of(world).delay_seconds = 0.05
        try:
            yield
        finally:
            proxy_of(world).delay_seconds = 0.0

    for function in (reset, half_open, refused, black_hole, far_away):
        FAULTS[f"{name}-{function.__name__.replace('_', '-')}"] = function


_network("broker", lambda world: world.broker_proxy)
_network("store", lambda world: world.store_proxy)


# -- a store that answers with errors -------------------------------------------------------------


@fault
def store_readonly(world: World) -> Iterator[None]:
    """A replica whose master is gone, as after half a failover: READONLY, what it has is served."""
    world.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        world.redis.execute_command("REPLICAOF", "NO", "ONE")


@fault
def store_masterdown(world: World) -> Iterator[None]:
    """As before, but it serves nothing: MASTERDOWN."""
    world.redis.config_set("replica-serve-stale-data", "no")
    world.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        world.redis.execute_command("REPLICAOF", "NO", "ONE")
        world.redis.config_set("replica-serve-stale-data", "yes")


@fault
def store_out_of_memory(world: World) -> Iterator[None]:
    world.redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        world.redis.config_set("maxmemory", "0")


@fault
def store_busy(world: World) -> Iterator[None]:
    """A script of somebody else that does not end: BUSY to all others."""

    def run_endlessly() -> None:
        with suppress(redis.RedisError), world.redis.client() as client:
            client.eval("while true do end", 0)

    thread = Thread(target=run_endlessly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        wait_until(lambda: _serves_again(world, thread), what="a store that is not busy")


def _serves_again(world: World, thread: Thread) -> bool:
    """End the script, whether its caller still waits, has given up or only begins now."""
    with suppress(redis.RedisError):
        world.redis.execute_command("SCRIPT", "KILL")
    try:
        world.redis.ping()
    except redis.RedisError:
        return False
    return not thread.is_alive()


@fault
def store_needs_a_password(world: World) -> Iterator[None]:
    """NOAUTH on new connections: somebody has changed the configuration."""
    world.redis.config_set("requirepass", "secret")
    world.store_proxy.reset()
    try:
        yield
    finally:
        world.redis.execute_command("AUTH", "secret")
        world.redis.config_set("requirepass", "")


@fault
def store_emptied(world: World) -> Iterator[None]:
    """FLUSHALL: keys, totals and what is remembered of attempts are gone."""
    world.store_is_whole = False
    world.redis.flushall()
    yield
