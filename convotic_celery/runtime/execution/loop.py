"""An asyncio event loop on a thread of its own, and the one of this process.

Owns starting, stopping and running coroutines from other threads. What runs on it is not its
business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

__all__ = ["LoopThread", "process_loop", "stop_process_loop"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long :meth:`LoopThread.stop` waits for cancelled coroutines to end.
STOP_SECONDS = 5.0
#: And for its last coroutine.
LAST_SECONDS = 1.0


class LoopThread:
    """An event loop that runs on a daemon thread. All methods are thread-safe and idempotent."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # a signal handler may stop what its thread has begun to use
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop.

        Raises:
            RuntimeError: The thread was not started, or has been stopped.
        """
        if self._loop is None:
            raise RuntimeError(f"the event loop {self._name!r} is not running")
        return self._loop

    @property
    def thread_id(self) -> int | None:
        """Identifier of the thread; None when it does not run."""
        return None if self._thread is None else self._thread.ident

    @property
    def is_running(self) -> bool:
        """True between :meth:`start` and :meth:`stop`."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread and return when the loop runs."""
        with self._lock:
            if self._loop is not None:
                return
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(_handle_loop_exception)
            started = threading.Event()
            loop.call_soon(started.set)
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=_run_loop, args=(loop, self._stopping), name=self._name, daemon=True
            )
            self._thread.start()
            started.wait()
            self._loop = loop

    def run(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        seconds: float | None = None,
        on_interrupt: Callable[[], object] | None = None,
    ) -> T:
        """Run a coroutine on the loop from another thread, in a copy of the caller's context.

        Blocks until it has ended. What interrupts the caller meanwhile (a time limit's signal in a
        prefork child, a timeout) calls ``on_interrupt`` and cancels the coroutine.

        Raises:
            TimeoutError: It took longer than ``seconds``.
            asyncio.CancelledError: It was cancelled on the loop.
            RuntimeError: The loop is not running.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result(seconds)
        except CancelledError:
            raise asyncio.CancelledError from None
        except BaseException:
            if on_interrupt is not None and not future.done():
                on_interrupt()
            future.cancel()
            raise

    def stop(self, at_last: Callable[[], Awaitable[object]] | None = None) -> None:
        """Cancel what still runs, wait at most five seconds for it, and end the thread.

        ``at_last`` closes what belongs to the loop, once nothing else runs on it; it has a second.
        """
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        stopping = self._stopping

        def end(_: object) -> None:
            stopping.set()
            loop.call_soon_threadsafe(loop.stop)

        asyncio.run_coroutine_threadsafe(_finish(at_last), loop).add_done_callback(end)
        thread.join(STOP_SECONDS + 2 * LAST_SECONDS)
        if thread.is_alive():
            logger.warning("The event loop %s does not stop: a coroutine blocks it", self._name)


def _run_loop(loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
    """Run the loop until it is stopped by its owner.

    A handler can end it too: by ``loop.stop()``, or by a background task that raises SystemExit or
    KeyboardInterrupt, which asyncio lets through. Every other handler would then hang.
    """
    asyncio.set_event_loop(loop)
    while not stopping.is_set():
        try:
            loop.run_forever()
            if not stopping.is_set():
                logger.error("A handler stopped the event loop; it runs again")
        except BaseException:
            logger.exception("A background task of a handler tried to end the process; it goes on")
    asyncio.set_event_loop(None)
    loop.close()


async def _finish(at_last: Callable[[], Awaitable[object]] | None) -> None:
    await _cancel_all()
    if at_last is not None:
        try:
            await asyncio.wait_for(at_last(), LAST_SECONDS)
        except Exception:
            logger.warning("What belongs to an event loop was not closed", exc_info=True)


async def _cancel_all() -> None:
    """Cancel every other task of the loop and let asynchronous generators clean up."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in pending:
            logger.warning("A coroutine ignores its cancellation: %r", task)
    await loop.shutdown_asyncgens()


def _handle_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that was never awaited, but not grpc's harmless wake-up race.

    Two grpc.aio loops in one process share one wake-up descriptor; the loser's read finds it empty,
    https://github.com/grpc/grpc/issues/25364.
    """
    if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in str(
        context.get("handle", "")
    ) + str(context.get("message", "")):
        return
    loop.default_exception_handler(context)


_process_loop: LoopThread | None = None
_process_lock = threading.Lock()


def process_loop() -> LoopThread:
    """Return the event loop for async handlers of pools that are not asyncio's; it is running.

    One a process, started on first use and kept: clients that belong to a loop stay valid.
    """
    global _process_loop  # noqa: PLW0603 - the one thing that belongs to the process itself
    with _process_lock:
        if _process_loop is None:
            _process_loop = LoopThread("convotic-handlers")
        _process_loop.start()
        return _process_loop


def stop_process_loop() -> None:
    """Cancel what runs on the process's loop, wait at most five seconds for it, and end the loop.

    Safe in a signal handler: it takes no lock of :func:`process_loop`.
    """
    if _process_loop is not None:
        _process_loop.stop()


def _forget_process_loop() -> None:
    """Start afresh in a forked child: its parent's thread did not come along."""
    global _process_loop, _process_lock  # noqa: PLW0603 - as above
    _process_loop = None
    _process_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_process_loop)
