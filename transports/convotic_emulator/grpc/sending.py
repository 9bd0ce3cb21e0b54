"""What a connection sends: as its client's windows and its socket take it, calls in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Protocol

from convotic_emulator.grpc.frames import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    ErrorCode,
    Kind,
    ProtocolError,
    frame,
)

if TYPE_CHECKING:
    from convotic_emulator.grpc.call import Call

__all__ = ["Outlet", "Sender"]

#: A handler makes no further answers for a connection while so much waits to be sent on it.
_MAX_UNSENT_BYTES = 8 << 20
_HAVE_READ = b"have you"
#: A client answers a PING at once unless it is stopped; that is not waited for.
_READ_SECONDS = 0.1


class Outlet(Protocol):
    """What HTTP/2 uses of its socket."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close(self) -> None:
        """Send what waits, and close."""


class Sender:
    """The sending half of a connection."""

    def __init__(self, outlet: Outlet) -> None:
        self.loop = asyncio.get_running_loop()
        #: None when the client has gone.
        self._outlet: Outlet | None = outlet
        #: What the client lets us send, of all calls together.
        self._window = DEFAULT_WINDOW
        #: Whether the socket takes no more.
        self._is_paused = False
        #: Calls that wait for room, in turn.
        self._blocked: dict[Call, None] = {}
        self._unsent_bytes = 0
        self._drained: list[asyncio.Future[None]] = []
        #: Waited for in :meth:`have_read`, in the order of their PINGs.
        self._unread: deque[asyncio.Future[None]] = deque()

    # What the connection uses

    def pause(self, *, is_paused: bool) -> None:
        """Note whether the socket takes no more."""
        self._is_paused = is_paused
        if not is_paused:
            self.wake_blocked()

    def wake_blocked(self) -> None:
        """Wake calls that there is room for, in turn: once for all the frames that came together.

        A client that grants a byte at a time would have every grant wake a call.
        """
        room = 0 if self._is_paused else self._window
        while self._blocked and room > 0:
            call = next(iter(self._blocked))
            del self._blocked[call]
            if call.window > 0:  # otherwise its own window's growth brings it back
                room -= call.window
                call.on_room()

    def widen(self, size: int) -> None:
        """Take the client's leave to send more, of all calls together.

        Raises:
            ProtocolError: the window is larger than HTTP/2 allows.
        """
        self._window += size
        if self._window > MAX_WINDOW:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")

    def on_pong(self, payload: bytes) -> None:
        """Take the answer to a PING: the client has read what was sent before it."""
        if payload == _HAVE_READ and self._unread:
            waiting = self._unread.popleft()
            if not waiting.done():
                waiting.set_result(None)

    # What calls use

    async def have_read(self) -> None:
        """Wait until the client has read what was sent until now: its answer to a PING says so.

        Waits for 0.1 s at most.
        """
        waiting = self.loop.create_future()
        self._unread.append(waiting)
        self.write(frame(Kind.PING, 0, 0, _HAVE_READ))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READ_SECONDS):
                await waiting

    def write(self, data: bytes) -> None:
        """Send frames."""
        if self._outlet is not None:
            self._outlet.write(data)

    def room(self, call: Call) -> int:
        """Return how many bytes of a message can be sent now."""
        return 0 if self._is_paused else min(self._window, call.window)

    def spend(self, size: int) -> None:
        """Count bytes of messages that are sent."""
        self._window -= size

    def block(self, call: Call) -> None:
        """Wake a call when there is room for it."""
        self._blocked[call] = None

    def retry(self, call: Call) -> None:
        """Look again for room: a blocked call's own window has grown."""
        self._blocked[call] = None

    def passed(self) -> None:
        """Wake the next call: the woken one may need less than there is."""
        if self._blocked:
            self.wake_blocked()

    def reserve(self, size: int) -> None:
        """Count bytes of answers that are being made and sent; negative: that are sent."""
        self._unsent_bytes += size
        if self._drained and self.is_drained:
            waiting, self._drained = self._drained, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    @property
    def is_drained(self) -> bool:
        """Whether little waits to be sent."""
        return self._unsent_bytes <= _MAX_UNSENT_BYTES

    async def drained(self) -> None:
        """Wait until little waits to be sent."""
        while not self.is_drained:
            future: asyncio.Future[None] = self.loop.create_future()
            self._drained.append(future)
            await future
