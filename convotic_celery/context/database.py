"""Runs the scripts on the store, for async and for plain code, with one meaning of failure.

A call is repeated by redis-py on connection errors (see ``store.py``), then once more if the store
could be found again; then it is StoreUnavailable. Scripts are written to be repeated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from convotic_celery.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_celery.context.scripts import Script
    from convotic_celery.context.store import Store

__all__ = ["AsyncDatabase", "SyncDatabase"]

#: What redis-py raises when the server is away. Anything else is a bug or a refusal, and passes.
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError)


class AsyncDatabase:
    """The store's scripts for coroutines; uses the client of the running loop."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        """Run the script and return its answer; raises StoreUnavailable."""
        try:
            return await self._run(script, keys, arguments)
        except _AWAY as error:
            if not await asyncio.to_thread(self._store.find_again):
                raise _unavailable(error) from error
        try:
            return await self._run(script, keys, arguments)
        except _AWAY as error:
            raise _unavailable(error) from error

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        if not self._store.is_resolved:
            await asyncio.to_thread(self._store.resolve_url)
        client = self._store.async_client()
        try:
            return await client.evalsha(script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a server that has not seen it since it started
            return await client.eval(script.text, len(keys), *keys, *arguments)


class SyncDatabase:
    """The store's scripts for plain code; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        """Run the script and return its answer; raises StoreUnavailable."""
        try:
            return self._run(script, keys, arguments)
        except _AWAY as error:
            if not self._store.find_again():
                raise _unavailable(error) from error
        try:
            return self._run(script, keys, arguments)
        except _AWAY as error:
            raise _unavailable(error) from error

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        client = self._store.sync_client()
        try:
            return client.evalsha(script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a server that has not seen it since it started
            return client.eval(script.text, len(keys), *keys, *arguments)


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"The store does not answer: {error}")
