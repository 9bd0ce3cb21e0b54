"""What changes by itself: queue lengths, workers, pauses. Read on demand, and cached for a while.

On an emulator reading costs nothing. On the service, queue lengths come from Cloud Monitoring and
are minutes old, and asking the workers costs a message for each of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from convotic_celery.dashboard.workers import Worker, read_workers
from convotic_celery.errors import ConvoticError
from convotic_pubsub.errors import PubsubTransportError

if TYPE_CHECKING:
    from convotic_celery.app import ConvoticApp
    from convotic_pubsub.client.backlog_size import BacklogSize

__all__ = ["Backlogs", "Cached", "Figures", "Known"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which a value is fresh, on an emulator and on the service.
_BACKLOG_SECONDS = (1.0, 60.0)
_WORKERS_SECONDS = (4.0, 30.0)
#: How long workers have to answer, on an emulator and on the service.
_ANSWER_SECONDS = (1.0, 3.0)
#: How long a request waits for a value that is being read: without any, and with an old one.
_FIRST_WAIT_SECONDS = 4.0
_WAIT_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A value as far as it is known."""

    #: None: nothing (yet).
    value: T | None = None
    #: Since it was read.
    age_seconds: float = 0.0
    #: Why it could not be read the last time; "" if it could.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Backlogs:
    """The messages of handlers' subscriptions, without handlers of which it is unknown."""

    #: By queue.
    waiting: Mapping[str, BacklogSize]
    #: In the dead-letter subscription, by queue.
    dead_letters: Mapping[str, BacklogSize]


class Cached(Generic[T]):
    """A value that takes a while to read. Used by one event loop.

    A request soon gets what is known; a value older than ``fresh_seconds`` is read again in the
    background, once for all requests.
    """

    def __init__(self, read: Callable[[], T], fresh_seconds: Callable[[], float]) -> None:
        self._read = read
        self._fresh_seconds = fresh_seconds
        self._value: T | None = None
        self._problem = ""
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        #: Since the last reading began.
        self._is_expired = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="dashboard")

    async def get(self) -> Known[T]:
        """Return what is known now."""
        if self._reading is None and time.monotonic() - self._tried_at > self._fresh_seconds():
            self._is_expired = False
            self._reading = asyncio.create_task(self._refresh())
        if self._reading is not None:
            wait = _FIRST_WAIT_SECONDS if self._value is None else _WAIT_SECONDS
            await asyncio.wait([self._reading], timeout=wait)
        if self._value is None:
            return Known(None, 0.0, self._problem)
        return Known(self._value, time.monotonic() - self._read_at, self._problem)

    def expire(self) -> None:
        """Read it again at the next request; what is being read now may be older."""
        self._tried_at = float("-inf")
        self._is_expired = True

    def close(self) -> None:
        """Stop reading; a thread that reads now ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._value = await loop.run_in_executor(self._threads, self._read)
            self._read_at, self._problem = time.monotonic(), ""
        except (ConvoticError, PubsubTransportError, OSError) as error:
            self._problem = str(error)
        except Exception as error:
            logger.exception("The dashboard could not read its figures")
            self._problem = f"{type(error).__name__}: {error}"
        finally:
            self._reading = None
            if not self._is_expired:
                self._tried_at = time.monotonic()


class Figures:
    """Everything that an app's servers and workers report. Used by one event loop."""

    def __init__(self, app: ConvoticApp) -> None:
        self._app = app
        #: None until the broker has answered once.
        self.is_emulated: bool | None = None
        self.backlogs = Cached(self._read_backlogs, lambda: self._pick(_BACKLOG_SECONDS))
        self.paused = Cached(app.pauses.read, lambda: 2.0)
        self.dead_letters = Cached(self._count_dead_letters, lambda: 1.0)
        self._workers = Cached(self._ask_workers, lambda: self._pick(_WORKERS_SECONDS))

    async def workers(self) -> Known[list[Worker]]:
        """Return the workers that answer; unknown where remote control is off."""
        if not self._app.settings.remote_control:
            return Known(problem="Workers don't answer: CONVOTIC_REMOTE_CONTROL is false.")
        return await self._workers.get()

    def close(self) -> None:
        """Stop reading."""
        for each in (self.backlogs, self.dead_letters, self.paused, self._workers):
            each.close()

    def _ask_workers(self) -> list[Worker]:
        settings = self._app.settings
        is_near = settings.broker_is_embedded or settings.pubsub_emulator_host
        return read_workers(self._app, _ANSWER_SECONDS[0 if is_near else 1])

    def _pick(self, seconds: tuple[float, float]) -> float:
        return seconds[0] if self.is_emulated else seconds[1]

    def _count_dead_letters(self) -> dict[str, int]:
        """Return how many are open, by handler."""
        self._app.pauses.read()  # raises without the store: a sample would be no count
        found: dict[str, int] = {}
        for group in self._app.dead_letters.groups():
            found[group.handler] = found.get(group.handler, 0) + group.open
        return found

    def _read_backlogs(self) -> Backlogs:
        session = self._app.open_session()
        self.is_emulated = session.broker.is_emulated
        specs = {d.queue: session.spec(d.queue) for d in self._app.definitions}
        names = {queue: spec.subscription for queue, spec in specs.items()}
        dead = {
            queue: spec.dead_letter_topic.rsplit("/", 1)[-1]
            for queue, spec in specs.items()
            if spec.dead_letter_topic
        }
        wanted = [*names.values(), *dead.values()]
        sizes = session.resources.backlog_sizes(wanted) if wanted else {}
        return Backlogs(_by_queue(names, sizes), _by_queue(dead, sizes))


def _by_queue(names: Mapping[str, str], sizes: Mapping[str, Any]) -> dict[str, BacklogSize]:
    return {queue: sizes[name] for queue, name in names.items() if name in sizes}
