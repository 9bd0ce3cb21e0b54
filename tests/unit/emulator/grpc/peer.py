"""A client of HTTP/2 that does what a test tells it, by the library h2: not ours, nor gRPC's."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from convotic_emulator.grpc.call import Call, Method
from convotic_emulator.grpc.server import GrpcServer
from convotic_emulator.grpc.status import CallError, Status
from tests.support.waiting import PATIENCE

__all__ = ["Answer", "Echo", "Peer", "Text", "framed", "request_headers"]


class Text:
    """A message that is text."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        """Return the bytes."""
        return self.text


class Echo:
    """Methods for tests: what they did is noted."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.read: list[bytes] = []

    def methods(self) -> dict[str, Method]:
        """Return them by path."""
        return {
            "/test.Echo/Same": Method(self.same, Text),
            "/test.Echo/Large": Method(self.large, Text),
            "/test.Echo/Never": Method(self.never, Text),
            "/test.Echo/Broken": Method(self.broken, Text),
            "/test.Echo/Refuse": Method(self.refuse, Text),
            "/test.Echo/Details": Method(self.details, Text),
            "/test.Echo/Stream": Method(self.stream, Text, is_stream=True),
            "/test.Echo/Slow": Method(self.slow, Text, is_stream=True),
            "/test.Echo/Flood": Method(self.flood, Text, is_stream=True),
        }

    async def same(self, request: Text, _call: Call) -> Text:
        """Return the request."""
        return request

    async def large(self, request: Text, _call: Call) -> Text:
        """Return as many bytes as the request says."""
        return Text(bytes(range(256)) * (int(request.text) // 256))

    async def never(self, _request: Text, _call: Call) -> Text:
        """Wait until it is cancelled."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError("it never goes on")

    async def broken(self, _request: Text, _call: Call) -> Text:
        """Have a mistake."""
        raise ZeroDivisionError("a mistake")

    async def refuse(self, _request: Text, _call: Call) -> Text:
        """Fail as methods do."""
        raise CallError(Status.NOT_FOUND, "There is no such thing. " * 10)

    async def details(self, _request: Text, _call: Call) -> Text:
        """Fail with more details than a frame holds."""
        raise CallError(Status.FAILED_PRECONDITION, "no", (("detail-bin", bytes(61_000)),))

    async def stream(self, call: Call) -> None:
        """Return each request."""
        call.send_headers()
        while (message := await call.read()) is not None:
            await call.write(message)

    async def slow(self, call: Call) -> None:
        """Read nothing until the test wants."""
        self.begun.set()
        await self.go_on.wait()
        while (message := await call.read()) is not None:
            self.read.append(message.text)

    async def flood(self, call: Call) -> None:
        """Write without end."""
        while True:
            await call.write(Text(b"x" * 10_000))
            self.read.append(b"written")


class Answer:
    """What has come back of one call."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.data = b""
        self.reset: int | None = None
        self.is_over = False

    @property
    def messages(self) -> list[bytes]:
        """The messages that are whole."""
        found, rest = [], self.data
        while len(rest) >= 5:
            size = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found

    @property
    def status(self) -> int:
        """The status of gRPC; it may stand in the headers, if there is nothing else."""
        return int((self.trailers or self.headers)["grpc-status"])

    @property
    def text(self) -> str:
        """The status's text."""
        return (self.trailers or self.headers).get("grpc-message", "")


class Peer:
    """A connection to a GrpcServer. ``async with Peer(port) as peer``."""

    def __init__(self, port: int, *, credits_itself: bool = True) -> None:
        self._port = port
        #: Whether it lets the server send on as it reads.
        self.credits_itself = credits_itself
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.answers: dict[int, Answer] = defaultdict(Answer)
        self.goaway: ConnectionTerminated | None = None
        self.is_closed = False
        self._reader: Any = None
        self.writer: Any = None

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.h2.initiate_connection()
        await self.flush()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.close()

    async def flush(self) -> None:
        """Send what h2 has to send."""
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that h2 knows nothing of."""
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, path: str, **headers: str) -> int:
        """Begin a call; return its number."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, request_headers(path, **headers))
        await self.flush()
        return stream

    async def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send data of a call, in parts that the server has room for."""
        while data and not self.answers[stream].is_over:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                await self.receive()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            await self.flush()
        if ends:
            self.h2.end_stream(stream)
            await self.flush()

    async def call(self, path: str, message: bytes, **headers: str) -> Answer:
        """Make a whole call."""
        stream = await self.begin(path, **headers)
        await self.send(stream, framed(message), ends=True)
        return await self.end_of(stream)

    async def end_of(self, stream: int) -> Answer:
        """Return a call's answer once it is over."""
        answer = self.answers[stream]
        while not answer.is_over:
            await self.receive()
        return answer

    async def end_of_connection(self) -> ConnectionTerminated | None:
        """Wait until the server has closed the connection; return what it gave as the reason."""
        while not self.is_closed:
            await self.receive()
        return self.goaway

    async def receive(self) -> None:
        """Read once."""
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(65_536)
        if not data:
            self.is_closed = True
            for answer in self.answers.values():
                answer.is_over = True
            return
        for event in self.h2.receive_data(data):
            self._on_event(event)
        await self.flush()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
            return
        stream = getattr(event, "stream_id", 0)
        answer = self.answers[stream]
        if isinstance(event, ResponseReceived):
            answer.headers = _as_text(event.headers)
        elif isinstance(event, TrailersReceived):
            answer.trailers = _as_text(event.headers)
        elif isinstance(event, DataReceived):
            answer.data += event.data
            if self.credits_itself:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)
            answer.is_over = True
        elif isinstance(event, StreamEnded):
            answer.is_over = True


def _as_text(headers: Any) -> dict[str, str]:
    """Return headers that h2 has decoded; its types say that they may be bytes."""
    return dict(headers)


def request_headers(path: str, **more: str) -> list[tuple[str, str]]:
    """Return the headers of a call."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return list(headers.items())


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """Return a message as gRPC sends it."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


async def started(echo: Echo) -> tuple[GrpcServer, int]:
    """Return a server of the methods, and its port."""
    server = GrpcServer(echo.methods(), name="the test", max_request_bytes=3_000_000)
    return server, await server.listen("127.0.0.1", 0)
