"""The modules' lifespans in this process: entered when it starts, left when it ends.

One that was not, or that failed in a prefork child, is entered by the first run that needs it. Each
lives in a task of its own, so that it is left by the task that entered it, as task groups and
cancel scopes need. Async handlers share those of their event loop, plain ones the home loop's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from convotic_celery.errors import ConvoticError
from convotic_celery.runtime.delivery.error_text import error_text, error_type
from convotic_celery.runtime.execution.loop import process_loop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convotic_celery.sdk.lifespan import Lifespan

__all__ = ["HasLifespan", "Lifespans", "begin_all", "one_of_each", "report_failure"]

logger = logging.getLogger(__name__)

#: How long a lifespan may take to clean up when the worker stops.
LEAVE_SECONDS = 10.0


class HasLifespan(Protocol):
    """A handler or a route."""

    @property
    def module(self) -> str:
        """Its module's name."""
        ...

    @property
    def lifespan(self) -> Lifespan | None:
        """Its module's lifespan."""
        ...


class _Entered:
    """One open lifespan."""

    def __init__(self, module: str, lifespan: Lifespan) -> None:
        self.module = module
        self.value: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self._live(lifespan), name=f"lifespan of {module}")
        # Without effect unless it was stopped while it was being entered, or before.
        self.task.add_done_callback(lambda _: self.value.cancel())

    async def _live(self, lifespan: Lifespan) -> None:
        try:
            async with lifespan() as value:
                self.value.set_result(value)
                await self.over.wait()
        except Exception as error:  # noqa: BLE001 - told to who waits for it
            self._fail(error)
        except BaseException as raised:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # it is left, or its loop ends
                raise
            # Its own: sys.exit() would end the loop, and a CancelledError say nothing.
            own = ConvoticError(f"it raised {error_type(raised)}({error_text(raised)})")
            own.__cause__ = raised
            self._fail(own)

    def _fail(self, error: Exception) -> None:
        if self.value.done():
            logger.error("The lifespan of module %s failed at its end", self.module, exc_info=error)
        else:
            self.value.set_exception(error)


def one_of_each(definitions: Iterable[HasLifespan]) -> list[HasLifespan]:
    """Return the first handler or route of each module that has a lifespan, in order."""
    found: dict[str, HasLifespan] = {}
    for definition in definitions:
        if definition.lifespan is not None:
            found.setdefault(definition.module, definition)
    return list(found.values())


class Lifespans:
    """Enters and leaves lifespans. Thread-safe; one a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._home: asyncio.AbstractEventLoop | None = None
        self._entered: dict[tuple[asyncio.AbstractEventLoop, str], _Entered] = {}

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have plain handlers share what async ones on this loop have."""
        self._home = loop

    async def enter(self, definition: HasLifespan) -> Any:
        """Return what the module's lifespan yields, entering it once on the running loop.

        What entering raises passes through, and the next call tries again.
        """
        assert definition.lifespan is not None
        key = (asyncio.get_running_loop(), definition.module)
        with self._lock:
            entered = self._entered.get(key)
            if entered is None:
                entered = _Entered(definition.module, definition.lifespan)
                self._entered[key] = entered
        if entered.value.done() and entered.value.exception() is None:
            return entered.value.result()
        try:
            # shield: a run that is cancelled while it waits leaves the others waiting.
            return await asyncio.shield(entered.value)
        except Exception:
            with self._lock:
                if self._entered.get(key) is entered:
                    del self._entered[key]
            raise

    def enter_sync(self, definition: HasLifespan) -> Any:
        """Do what :meth:`enter` does from a thread, on the home loop."""
        return self.begin(definition).result()

    def begin(self, definition: HasLifespan) -> Future[Any]:
        """Have the home loop enter the module's lifespan; does not wait. Not for that loop."""
        home = self._home
        if home is None or home.is_closed():  # its pool has ended
            home = process_loop().loop
        return asyncio.run_coroutine_threadsafe(self.enter(definition), home)

    async def aclose(self) -> None:
        """Leave those of the running loop, the last one entered first. Idempotent."""
        loop = asyncio.get_running_loop()
        with self._lock:
            mine = [key for key in self._entered if key[0] is loop]
            entered = [self._entered.pop(key) for key in reversed(mine)]
        for each in entered:
            each.over.set()
            if not each.value.done():  # it is still being entered
                each.task.cancel()
            _, pending = await asyncio.wait({each.task}, timeout=LEAVE_SECONDS)
            if pending:
                logger.warning("The lifespan of module %s does not end", each.module)
                each.task.cancel()

    def close(self) -> None:
        """Leave those of all loops, from another thread. Blocks; idempotent."""
        with self._lock:
            loops = {loop for loop, _ in self._entered}
        for loop in loops:
            if loop.is_running():
                try:
                    closing = asyncio.run_coroutine_threadsafe(self.aclose(), loop)
                    closing.result(2 * LEAVE_SECONDS)
                except TimeoutError:
                    logger.warning("The modules' lifespans do not end")


def begin_all(lifespans: Lifespans, definitions: Iterable[HasLifespan]) -> None:
    """Have a prefork child enter them, without waiting: its parent kills a child that is late.

    One that fails is an error in the log, and the first run that needs it tries again: a child that
    ended itself would be replaced at once, again and again.
    """
    for definition in one_of_each(definitions):
        lifespans.begin(definition).add_done_callback(partial(_report_if_failed, definition))


def _report_if_failed(definition: HasLifespan, opening: Future[Any]) -> None:
    error = None if opening.cancelled() else opening.exception()
    if error is not None:
        report_failure(definition, error, "the first run that needs it tries again")


def report_failure(definition: HasLifespan, error: BaseException, consequence: str) -> None:
    """Log that a module's lifespan could not be entered, and what follows from that."""
    logger.error(
        "The lifespan of module %s failed, %s: %s: %s",
        definition.module,
        consequence,
        type(error).__name__,
        error,
        exc_info=error,
    )
