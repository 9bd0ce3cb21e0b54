"""Flow control: what each side may send (RFC 9113, section 5.2)."""

from __future__ import annotations

from convotic_emulator.grpc.frames import ErrorCode, ProtocolError, StreamError, window_update

__all__ = ["ReceiveWindow"]


class ReceiveWindow:
    """How much the peer may send of a stream; stream 0 is the connection."""

    __slots__ = ("_credit", "_left", "_size", "_stream")

    def __init__(self, stream: int, size: int) -> None:
        self._stream = stream
        self._size = self._left = size
        #: Bytes that have arrived and are not granted again.
        self._credit = 0

    def take(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            ProtocolError: they are more than the connection's window allows.
            StreamError: they are more than the stream's window allows.
        """
        self._left -= size
        self._credit += size
        if self._left < 0:
            reason = f"more data than the window of stream {self._stream} allows"
            if self._stream:
                raise StreamError(self._stream, ErrorCode.FLOW_CONTROL_ERROR, reason)
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, reason)

    def grant(self) -> bytes:
        """Return a frame that grants again what has arrived, b"" while that is less than half."""
        if self._credit < self._size // 2:
            return b""
        credit, self._credit = self._credit, 0
        self._left += credit
        return window_update(self._stream, credit)
