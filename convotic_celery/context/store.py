"""Clients of the store, Redis or Valkey: :class:`Store`. Created when first used, only here.

Owns connections and timeouts; calls are repeated by ``database.py``. What is written is in the
services and ``attempts.py``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from convotic_celery.context.connections import Connections
from convotic_celery.context.pipeline import Pipeline

__all__ = ["Store"]

#: No retries by redis-py: it retries a command, in each try the connection, and in each of those
#: the handshake, so that a call would wait many minutes for a server that hangs.
_RETRIES = 0
#: Connections of one process or event loop; a caller beyond them waits for one.
_MAX_CONNECTIONS = 64
_POOL_TIMEOUT_SECONDS = 30.0
_HEALTH_CHECK_SECONDS = 30


class Store:
    """The store of one address: a client for each event loop, and one for each process.

    Thread-safe, and safe across fork and spawn: a new process makes its own connections. Pickles
    without them. The first command makes the first connection.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, or a blocking function that returns it. A
            function is called on first use, and again after the server could not be reached: it
            may restart the server.
        timeout_seconds: How long to wait for one answer, and for a connection.
    """

    def __init__(self, url: str | Callable[[], str], *, timeout_seconds: float = 5.0) -> None:
        self._provide_url = url
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._url = url if isinstance(url, str) else None
        self._pid = os.getpid()
        self._sync: redis.Redis | None = None
        self._connections: Connections | None = None
        self._async: dict[asyncio.AbstractEventLoop, redis.asyncio.Redis] = {}
        self._pipelines: dict[asyncio.AbstractEventLoop, Pipeline] = {}
        self._abandoned: list[object] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._provide_url, self._timeout_seconds)

    @property
    def timeout_seconds(self) -> float:
        """How long one answer may take."""
        return self._timeout_seconds

    @property
    def is_resolved(self) -> bool:
        """True once the address is known, so that getting a client does not block."""
        return self._url is not None

    def resolve_url(self) -> str:
        """Return the address; the first call may block while the server is started."""
        if self._url is None:
            self._url = self._ask_for_url()
        return self._url

    def sync_client(self) -> redis.Redis:
        """Return this process's client, made on first use (blocks as ``resolve_url`` does)."""
        url = self.resolve_url()
        self._leave_parent_behind()
        with self._lock:
            if self._sync is None:
                pool = redis.BlockingConnectionPool.from_url(
                    url, retry=Retry(NoBackoff(), _RETRIES), **self._connection_options()
                )
                self._sync = redis.Redis.from_pool(pool)
            return self._sync

    def async_client(self) -> redis.asyncio.Redis:
        """Return the running loop's client, made on first use. Close it with :meth:`aclose`."""
        url = self.resolve_url()
        loop = asyncio.get_running_loop()
        self._leave_parent_behind()
        with self._lock:
            client = self._async.get(loop)
            if client is None:
                self._forget_closed_loops()
                pool: redis.asyncio.BlockingConnectionPool
                pool = redis.asyncio.BlockingConnectionPool.from_url(
                    url, retry=AsyncRetry(NoBackoff(), _RETRIES), **self._connection_options()
                )
                client = self._async[loop] = redis.asyncio.Redis.from_pool(pool)
            return client

    def connections(self) -> Connections:
        """Return this process's connections for plain code (blocks as ``resolve_url`` does)."""
        if self._pid == os.getpid() and (found := self._connections) is not None:
            return found
        client = self.sync_client()
        with self._lock:
            if self._connections is None:
                self._connections = Connections(client.connection_pool.make_connection)
            return self._connections

    def pipeline(self) -> Pipeline:
        """Return the running loop's pipeline, made on first use. Close it with :meth:`aclose`."""
        loop = asyncio.get_running_loop()
        if self._pid == os.getpid() and (found := self._pipelines.get(loop)) is not None:
            return found
        client = self.async_client()
        with self._lock:
            return self._pipelines.setdefault(
                loop, Pipeline(client.connection_pool.make_connection, self._timeout_seconds)
            )

    async def aclose(self) -> None:
        """Close the running loop's client and pipeline; the next use makes new ones."""
        with self._lock:
            client = self._async.pop(asyncio.get_running_loop(), None)
            pipeline = self._pipelines.pop(asyncio.get_running_loop(), None)
        if pipeline is not None:
            await pipeline.aclose()
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        """Close the process's client and connections; the next use makes new ones."""
        with self._lock:
            client, self._sync = self._sync, None
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
        if client is not None:
            client.close()

    def find_again(self) -> bool:
        """Resolve the address again after a failure; True if another try makes sense (blocks).

        Only if the address is a function, which may have restarted the server.
        """
        if isinstance(self._provide_url, str):
            return False
        url = self._ask_for_url()
        with self._lock:
            if url != self._url:
                self._url = url
                self._abandon_clients()
        return True

    def _ask_for_url(self) -> str:
        return self._provide_url if isinstance(self._provide_url, str) else self._provide_url()

    def _connection_options(self) -> dict[str, Any]:
        return {
            "decode_responses": True,
            "health_check_interval": _HEALTH_CHECK_SECONDS,
            "max_connections": _MAX_CONNECTIONS,
            "protocol": 2,
            "socket_connect_timeout": self._timeout_seconds,
            "socket_timeout": self._timeout_seconds,
            "timeout": _POOL_TIMEOUT_SECONDS,
        }

    def _leave_parent_behind(self) -> None:
        if self._pid != os.getpid():
            # Another thread of the parent may have held the lock when this process was forked.
            self._lock = threading.Lock()
            self._pid = os.getpid()
            self._abandon_clients()

    def _abandon_clients(self) -> None:
        # Kept, not closed: closing would end connections that the parent process or a running
        # coroutine still uses, and so would their finalizers.
        self._abandoned += [self._sync, *self._async.values(), *self._pipelines.values()]
        self._abandoned.append(self._connections)
        self._sync = self._connections = None
        self._async = {}
        self._pipelines = {}

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._async if loop.is_closed()]:
            del self._async[loop]
            self._pipelines.pop(loop, None)


def _rebuild(url: str | Callable[[], str], timeout_seconds: float) -> Store:
    return Store(url, timeout_seconds=timeout_seconds)
