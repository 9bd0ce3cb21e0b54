"""Writes an index entry for each dead letter of this process: :class:`Recorder`.

The transport calls it once a dead letter is confirmed, so the index never delays or loses one. What
can't be written, since the store is unavailable or the process dies, ``sync`` takes in.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from convotic_celery.errors import StoreUnavailable
from convotic_pubsub.outage import Outage
from convotic_pubsub.threads import LazyThread

if TYPE_CHECKING:
    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.entry import DeadLetter
    from convotic_celery.dead_letters.index import Index
    from convotic_pubsub.queue import Received

__all__ = ["DeadLetterEvent", "DeadLetterHook", "Recorder"]

logger = logging.getLogger(__name__)

#: Dead letters that wait for the store, in this process; later ones are left to ``sync``.
_MAX_PENDING = 10_000
_BATCH = 100
_PROBE_SECONDS = 1.0
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DeadLetterEvent:
    """What CONVOTIC_DEAD_LETTER_HOOK is called with."""

    #: ``first``: no dead letter of its group is known. ``again``: it was replayed, and failed.
    kind: Literal["first", "again"]
    dead_letter: DeadLetter


#: Called in a thread of its own; what it raises is logged.
DeadLetterHook: TypeAlias = Callable[[DeadLetterEvent], object]


class Recorder:
    """Takes dead letters on any thread and writes them on its own. Starts with the first one."""

    def __init__(
        self, index: Index, deployment: Deployment, find_hook: Callable[[], DeadLetterHook | None]
    ) -> None:
        self._index = index
        self._deployment = deployment
        self._find_hook = find_hook
        self._pending: deque[DeadLetter] = deque()
        self._wake = threading.Condition()
        self._thread = LazyThread(self._run, name="convotic-dead-letters")
        self._left_out = 0

    def note(
        self, handler: str, received: Received, attributes: Mapping[str, str], message_id: str
    ) -> None:
        """Note that a message of a handler is in its dead-letter topic now. Does not block."""
        dead = self._deployment.read_of(handler, received, attributes, message_id)
        with self._wake:
            if len(self._pending) >= _MAX_PENDING:
                self._left_out += 1
                return
            self._pending.append(dead)
            if self._thread.start():
                atexit.register(self.flush)
            self._wake.notify_all()

    def flush(self, timeout_seconds: float = _FLUSH_SECONDS) -> None:
        """Wait until all is written, or so long."""
        if self._thread.is_alive:
            with self._wake:
                self._wake.wait_for(lambda: not self._pending, timeout_seconds)

    def _run(self) -> None:
        never, outage = threading.Event(), Outage()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending)
                some = [self._pending[i] for i in range(min(_BATCH, len(self._pending)))]
            try:
                self._write(some)
            except StoreUnavailable as error:
                if outage.miss():
                    logger.warning(
                        "Dead letters are not in the index yet, the store is unavailable: %s",
                        error,
                        extra={"action": "dead_letter_index_unavailable"},
                    )
                never.wait(_PROBE_SECONDS)
                continue
            except Exception:
                logger.exception("Dead letters could not be indexed; `convotic dlq sync` does it")
            outage.end()
            with self._wake:
                for _ in some:
                    self._pending.popleft()
                self._wake.notify_all()
                left_out, self._left_out = self._left_out, 0
            if left_out:
                logger.warning(
                    "%d dead letters are not in the index: run `convotic dlq sync`",
                    left_out,
                    extra={"action": "dead_letters_not_indexed"},
                )

    def _write(self, some: list[DeadLetter]) -> None:
        for dead, (what, is_first) in zip(some, self._index.record(some), strict=True):
            if what == "again":
                self._tell(DeadLetterEvent("again", dead))
            elif is_first:
                self._tell(DeadLetterEvent("first", dead))

    def _tell(self, event: DeadLetterEvent) -> None:
        try:
            hook = self._find_hook()
            if hook is not None:
                hook(event)
        except Exception:
            logger.exception("CONVOTIC_DEAD_LETTER_HOOK failed on %s", event.dead_letter.id)
