"""Runs the scripts on the store, for async and for plain code, with the same retries.

A call is repeated while the store can't be reached or can't serve, and once more if its address
could be resolved again; then it raises StoreUnavailable. Scripts are written to be repeated.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from convotic_celery.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convotic_celery.context.scripts import Script
    from convotic_celery.context.store import Store

__all__ = ["AsyncDatabase", "SyncDatabase"]

#: A script, its keys and its arguments.
ScriptCall: TypeAlias = "tuple[Script, Sequence[str], Sequence[str]]"

#: What redis-py raises when the server does not answer.
_NO_ANSWER = (RedisConnectionError, RedisTimeoutError, OSError)

#: The server answers, but can't serve now (a failover, no memory, a script that does not
#: end, no disk); Redis before 7 puts the code into the text of the script's own error. Any other
#: answer is a bug or a wrong type, and passes.
_CODES = {
    ReadOnlyError: "READONLY",
    OutOfMemoryError: "OOM",
    MasterDownError: "MASTERDOWN",
    TryAgainError: "TRYAGAIN",
}
_CODE = re.compile(
    r"(?:^|[\s-])(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)

#: The server refuses this client: somebody must act.
_REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)

#: Five more tries, 0.05 to 1 s apart, bridge a restart of the server. None begins after the time
#: that one answer may take, so a server that hangs is reported then.
_RETRIES = 5
_BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=1.0)


class _Tries:
    """How often one call is repeated."""

    __slots__ = ("_ends_at", "_failures")

    def __init__(self, seconds: float, began: float | None = None) -> None:
        self._ends_at = (time.monotonic() if began is None else began) + seconds
        self._failures = 0

    def pause_after(self, error: Exception) -> float:
        """Return the seconds until the next try; raises StoreUnavailable if there is none.

        An error that is no outage is raised again.
        """
        if isinstance(error, _REFUSALS):
            what = "NOPERM" if isinstance(error, NoPermissionError) else "NOAUTH"
            raise StoreRefused(f"The store refuses this client ({what}): {error}") from error
        code = _code_of(error)
        if not code and not isinstance(error, _NO_ANSWER):
            raise error
        self._failures += 1
        if self._failures > _RETRIES or time.monotonic() >= self._ends_at:
            what = f"can't serve ({code})" if code else "does not answer"
            raise StoreUnavailable(f"The store {what}: {error}") from error
        return _BACKOFF.compute(self._failures)


def _code_of(error: Exception) -> str:
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    found = _CODE.search(str(error)) if isinstance(error, ResponseError) else None
    return known or (found[1] if found else "")


class AsyncDatabase:
    """The store's scripts for coroutines; uses the pipeline of the running loop."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        """Run the script and return its answer; raises StoreUnavailable."""
        store, failed, began = self._store, None, time.monotonic()
        if store.is_resolved:  # the common case: each coroutine more would cost a microsecond
            command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
            try:
                return await store.pipeline().send(command)
            except (*_NO_ANSWER, ResponseError) as error:
                failed = error
        try:
            tries = _Tries(store.timeout_seconds, began)
            return await self._repeat(script, keys, arguments, tries, failed)
        except StoreUnavailable:
            if not await asyncio.to_thread(store.find_again):
                raise
        return await self._repeat(script, keys, arguments, _Tries(store.timeout_seconds))

    async def _repeat(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str],
        tries: _Tries,
        failed: Exception | None = None,
    ) -> Any:
        while True:
            if failed is not None and not isinstance(failed, NoScriptError):
                await asyncio.sleep(tries.pause_after(failed))
            try:
                return await self._run(script, keys, arguments)
            except (*_NO_ANSWER, ResponseError) as error:
                failed = error

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        if not self._store.is_resolved:
            await asyncio.to_thread(self._store.resolve_url)
        call = self._store.pipeline().call
        try:
            return await call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a server that has not seen it since it started
            return await call("EVAL", script.text, len(keys), *keys, *arguments)


class SyncDatabase:
    """The store's scripts for plain code; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        """Run the script and return its answer; raises StoreUnavailable."""
        return self._ask(self._run, script, keys, arguments)

    def run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts in one round trip and return their answers, in order.

        A script's own error is its answer. Raises StoreUnavailable; then any may have been run.
        """
        answers: list[Any] = self._ask(self._run_all, calls)
        return answers

    def _ask(self, ask: Callable[..., Any], *what: Any) -> Any:
        try:
            return self._repeat(ask, *what)
        except StoreUnavailable:
            if not self._store.find_again():
                raise
        return self._repeat(ask, *what)

    def _repeat(self, ask: Callable[..., Any], *what: Any) -> Any:
        tries = _Tries(self._store.timeout_seconds)
        while True:
            try:
                return ask(*what)
            except (*_NO_ANSWER, ResponseError) as error:
                pause = tries.pause_after(error)
            threading.Event().wait(pause)  # never set: a wait that is no sleep

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        call = self._store.connections().call
        try:
            return call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a server that has not seen it since it started
            return call("EVAL", script.text, len(keys), *keys, *arguments)

    def _run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        answers = self._store.connections().call_all(
            [
                ("EVALSHA", script.sha, len(keys), *keys, *arguments)
                for script, keys, arguments in calls
            ]
        )
        unknown = []
        for number, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                unknown.append(number)
            elif isinstance(answer, ResponseError) and _code_of(answer):
                raise answer
        if unknown:
            first, *rest = unknown
            answers[first] = self._run(*calls[first])  # from now on the server knows it
            known = self._run_all([calls[number] for number in rest]) if rest else []
            for number, answer in zip(rest, known, strict=True):
                answers[number] = answer
        return answers
