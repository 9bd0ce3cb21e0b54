"""Celery's task events, sent in batches by a thread of their own: no message waits for them.

Celery makes an event of each step where it happens and publishes 24 at a time there, which costs a
handler that does little half of its throughput. Here a step is noted; a thread makes the events of
all that was noted within a quarter of a second and publishes them together. Where the broker is too
slow for that, the oldest are dropped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.utils.time import utcoffset
from kombu.serialization import dumps
from pydantic_core import to_json

from convotic_pubsub.threads import LazyThread

__all__ = ["BatchingDispatcher", "WorkerEvents"]

logger = logging.getLogger(__name__)

#: How long events gather, and how many a Pub/Sub message carries at most.
GATHER_SECONDS: Final = 0.25
MAX_BATCH: Final = 500
#: Noted and not sent yet; beyond it the oldest are dropped.
MAX_WAITING: Final = 20_000

#: The events of a run, whose fields are text and numbers: any JSON writer gives the same for them.
_OF_A_RUN: Final = frozenset({"task-received", "task-started", "task-succeeded"})


class BatchingDispatcher(EventDispatcher):
    """Celery's dispatcher, which a worker's task events only pass in batches. Thread-safe."""

    #: Celery's, missing in celery-types.
    exchange: Any
    serializer: Any
    headers: Any
    delivery_mode: Any
    groups: Any
    buffer_group: Any
    mutex: Any
    pid: Any
    clock: Any
    producer: Any
    _closed: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Type, time and fields of each event that is still to be made.
        self._noted: deque[tuple[str, float, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self._is_woken = False
        self._wake = threading.Event()
        self._thread = LazyThread(self._work, name="convotic-events")
        self._sending = threading.Lock()
        self._drops_reported = False
        super().__init__(*args, **kwargs)

    def send(
        self,
        type: str,  # noqa: A002 - Celery's name
        *args: Any,
        **fields: Any,
    ) -> None:
        """Note a task's event, for later; send any other one now."""
        if args or "task" not in self.buffer_group or not type.startswith("task-"):
            super().send(type, *args, **fields)
            return
        if not self.enabled or (self.groups and "task" not in self.groups):
            return
        if len(self._noted) == MAX_WAITING:
            self._report_drops()
        self._noted.append((type, time.time(), fields))
        if not self._is_woken:
            with contextlib.suppress(RuntimeError):  # no thread can start: the next event tries
                self._thread.start()
                self._is_woken = True
                self._wake.set()

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send all that was noted so far."""
        self._send_noted()
        super().flush(errors=errors, groups=groups)

    def extend_buffer(self, other: Any) -> None:
        """Take over what another dispatcher, of a lost connection, has not sent."""
        super().extend_buffer(other)
        self._noted.extend(getattr(other, "_noted", ()))

    def _work(self) -> None:
        closing = threading.Event()  # never set: a wait that is no sleep
        while True:
            self._wake.wait()
            self._wake.clear()
            closing.wait(GATHER_SECONDS)
            self._is_woken = False
            self._send_noted()

    def _send_noted(self) -> None:
        with self._sending:
            for _ in range(MAX_WAITING // MAX_BATCH):
                if not self._noted or not self._send_batch():
                    return

    def _send_batch(self) -> bool:
        """Publish a batch; False if there is no connection now."""
        noted, offset = self._noted, utcoffset()
        with self.mutex:
            if self._closed or self.producer is None:
                return False
            hostname, pid, forward = self.hostname, self.pid, self.clock.forward
            events = []
            for _ in range(min(MAX_BATCH, len(noted))):
                kind, at, event = noted.popleft()
                event["type"], event["timestamp"], event["clock"] = kind, at, forward()
                event["hostname"], event["pid"], event["utcoffset"] = hostname, pid, offset
                events.append(event)
            try:
                content_type, content_encoding, body = self._encode(events)
                self.producer.publish(
                    body,
                    routing_key="task.multi",
                    exchange=self.exchange.name,
                    retry=False,
                    declare=[self.exchange],
                    content_type=content_type,
                    content_encoding=content_encoding,
                    headers=self.headers,
                    delivery_mode=self.delivery_mode,
                )
            except Exception:  # noqa: BLE001 - of the broker, or of what a handler's error holds
                self._report_drops()
        return True

    def _encode(self, events: list[dict[str, Any]]) -> tuple[str, str, bytes | str]:
        """Return content type, encoding and body, as kombu's producer would make them.

        Nearly all events are those of a run: pydantic writes them in a quarter of json's time.
        """
        if self.serializer == "json" and all(event["type"] in _OF_A_RUN for event in events):
            with suppress(ValueError):  # half of a surrogate pair, which JSON writes as an escape
                return "application/json", "utf-8", to_json(events)
        encoded: tuple[str, str, bytes | str] = dumps(events, serializer=self.serializer)
        return encoded

    def _report_drops(self) -> None:
        if not self._drops_reported:
            self._drops_reported = True
            logger.warning(
                "Task events are dropped: the broker does not take them. Messages are not affected",
                extra={"action": "events_dropped"},
            )


class WorkerEvents(Events):
    """``app.events``, with our dispatcher."""

    dispatcher_cls = "convotic_celery.runtime.worker.events:BatchingDispatcher"
