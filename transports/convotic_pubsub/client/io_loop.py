"""The I/O thread: an asyncio loop that runs what other threads hand to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from convotic_pubsub.errors import BrokerUnavailable, PubsubTransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["FORKED", "IoLoop"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORKED = (
    "this process was forked from one that uses Pub/Sub, and gRPC does not survive a fork: such a "
    "child can publish (through its parent), nothing else; to consume, connect after the fork, or "
    "start the pool with worker_pool_start_method='spawn'"
)


class IoLoop:
    """A daemon thread with an event loop. Belongs to the process that made it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._posted: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._posting = False
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_on_loop_error)
        self._thread = threading.Thread(target=self._run, name="convotic-pubsub-io", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._ended = True
            self._loop.run_until_complete(self._run_rest())
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def post(self, function: Callable[..., object], *args: object) -> bool:
        """Run ``function`` on the thread soon, in the order of the posts. Does not block.

        False: the thread has ended, or is that of the process this one was forked from: what is
        outstanding is the parent's.
        """
        if self._ended or self.pid != os.getpid():
            return False
        self._posted.append((function, args))
        if not self._posting:
            self._posting = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                self._loop.call_soon_threadsafe(self.run_posted)
        return True

    def post_lazily(self, function: Callable[..., object], *args: object) -> None:
        """Run ``function`` before what is posted next, or when :meth:`run_posted` is called.

        Wakes no thread: one that wakes up takes the interpreter from the one that posts.
        """
        if self.pid == os.getpid():
            self._posted.append((function, args))

    async def _run_rest(self) -> None:
        """Run what was posted while the loop was ending; its tasks are cancelled, and know it."""
        self.run_posted()
        await asyncio.sleep(0)

    def run_posted(self) -> None:
        """Run what has been posted, on the thread itself."""
        self._posting = False
        while self._posted:
            function, args = self._posted.popleft()
            try:
                function(*args)
            except Exception:
                logger.exception("A transport step failed", extra={"action": "step_failed"})

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the thread; the future has its result.

        Raises:
            PubsubTransportError: the thread is that of the process this one was forked from.
        """
        if self.pid != os.getpid():
            coroutine.close()
            raise PubsubTransportError(FORKED)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the thread and wait for its result.

        Raises:
            BrokerUnavailable: no result within ``timeout`` seconds.
            PubsubTransportError: as :meth:`submit`.
        """
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise BrokerUnavailable(f"Pub/Sub did not answer within {timeout} s") from error

    def forked(self) -> None:
        """Let a forked child end without a word on the parent's tasks, which it has copies of."""
        for task in asyncio.all_tasks(self._loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch

    def stop(self) -> None:
        """End the loop and the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2.0)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out one harmless noise of grpc.aio: loops of several threads share its poller."""
    if isinstance(context.get("exception"), BlockingIOError):
        return
    loop.default_exception_handler(context)
