"""What a publish returns: an answer that another thread brings, to await or to block on.

A ``concurrent.futures.Future`` has a lock, a condition and a queue of waiters, a dozen containers:
with a thousand publishes at once the garbage collector took as long as the publishing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import InvalidStateError
from typing import Any

__all__ = ["Confirmation"]

logger = logging.getLogger(__name__)


class Confirmation:
    """The id of one message once the server has confirmed it, or why it has not. Thread-safe.

    Has what its users need of a ``concurrent.futures.Future``, and can be awaited on any loop. It
    can't be cancelled: who stops waiting takes no message back.
    """

    __slots__ = ("_callbacks", "_error", "_is_done", "_message_id")

    def __init__(self) -> None:
        self._message_id = ""
        self._error: BaseException | None = None
        self._is_done = False
        self._callbacks: list[Callable[[Confirmation], object]] = []

    def done(self) -> bool:
        """Return whether there is an answer."""
        return self._is_done

    def result(self, timeout: float | None = None) -> str:
        """Return the id, or raise the error; block until there is one, ``timeout`` at most.

        Raises:
            TimeoutError: there is no answer yet.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._message_id

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if it is one; as :meth:`result`."""
        if not self._is_done:
            answered = threading.Event()
            self.add_done_callback(lambda _: answered.set())
            if not answered.wait(timeout):
                raise TimeoutError
        return self._error

    def add_done_callback(self, callback: Callable[[Confirmation], object]) -> None:
        """Call ``callback`` with this once, on the thread that brings the answer, or now."""
        self._callbacks.append(callback)
        if self._is_done:
            self._call_back()

    def __await__(self) -> Generator[Any, None, str]:
        """Wait on the running loop; as :meth:`result`."""
        if not self._is_done:
            loop = asyncio.get_running_loop()
            answered: asyncio.Future[None] = loop.create_future()

            def wake(_: Confirmation) -> None:
                with contextlib.suppress(RuntimeError):  # its loop has been closed
                    loop.call_soon_threadsafe(_finish, answered)

            self.add_done_callback(wake)
            yield from answered
        return self.result()

    def set_result(self, message_id: str) -> None:
        """Confirm the message."""
        self._answer(message_id, None)

    def set_exception(self, error: BaseException) -> None:
        """Say why it is not confirmed."""
        self._answer("", error)

    def _answer(self, message_id: str, error: BaseException | None) -> None:
        if self._is_done:
            raise InvalidStateError("there is an answer")
        self._message_id, self._error = message_id, error
        self._is_done = True
        self._call_back()

    def _call_back(self) -> None:
        """Call what is to be called; pop() gives each callback to one thread only."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                logger.exception("A callback failed", extra={"action": "step_failed"})


def _finish(answered: asyncio.Future[None]) -> None:
    if not answered.done():  # whoever waited may have been cancelled
        answered.set_result(None)
