"""Calls of gRPC on the emulator's own HTTP/2, made by another HTTP/2 than ours."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from h2.settings import SettingCodes

from convotic_emulator.grpc.call import Call, Method
from convotic_emulator.grpc.server import GrpcServer
from convotic_emulator.grpc.status import CallError, Status
from tests.support.waiting import PATIENCE, wait_until_async
from tests.unit.emulator.grpc.peer import Echo, Peer, Text, framed, request_headers

CANCEL = 8


@pytest.fixture
async def peer(server: Any) -> AsyncIterator[Peer]:
    async with Peer(server.port) as connected:
        yield connected


async def test_a_unary_call(peer: Peer) -> None:
    """Headers, one message, trailers."""
    answer = await peer.call("/test.Echo/Same", b"hello")

    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.messages == [b"hello"]
    assert answer.trailers == {"grpc-status": "0"}
    assert answer.reset is None


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 16_379, 16_380, 65_530, 65_531, 2_900_000])
async def test_a_request_of_any_size(peer: Peer, size: int) -> None:
    """Over all limits of frames and windows; the answer has the same."""
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    assert (await peer.call("/test.Echo/Same", message)).messages == [message]


async def test_a_request_that_comes_a_byte_at_a_time(peer: Peer) -> None:
    """Frames, headers and messages are put together again."""
    stream = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(stream, request_headers("/test.Echo/Same"))
    peer.h2.send_data(stream, framed(b"hello"), end_stream=True)

    for byte in peer.h2.data_to_send():
        await peer.send_raw(bytes([byte]))

    assert (await peer.end_of(stream)).messages == [b"hello"]


async def test_two_messages_in_one_frame_and_one_in_two(peer: Peer) -> None:
    """A stream's messages don't end where frames do."""
    stream = await peer.begin("/test.Echo/Stream")
    data = framed(b"one") + framed(b"two") + framed(b"three")
    await peer.send(stream, data[:20])
    await peer.send(stream, data[20:], ends=True)

    answer = await peer.end_of(stream)

    assert answer.messages == [b"one", b"two", b"three"]
    assert answer.status == Status.OK


async def test_an_answer_larger_than_the_client_s_windows(server: Any) -> None:
    """It comes in parts, as the client reads, and nothing is lost or twice."""
    async with Peer(server.port) as peer:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        answer = await peer.call("/test.Echo/Large", b"300032")

    assert answer.messages == [bytes(range(256)) * 1172]


async def test_a_client_that_grants_nothing_gets_nothing_more(server: Any) -> None:
    """Its window is kept to, and its next grant is used."""
    async with Peer(server.port, credits_itself=False) as peer:
        stream = await peer.begin("/test.Echo/Large")
        await peer.send(stream, framed(b"100096"), ends=True)
        while len(peer.answers[stream].data) < 65_535:
            await peer.receive()
        other = await peer.begin("/test.Echo/Same")  # the connection's window is used up too
        await peer.send(other, framed(b""), ends=True)
        peer.h2.ping(b"12345678")
        await peer.flush()
        await peer.receive()
        assert len(peer.answers[stream].data) == 65_535
        assert not peer.answers[other].data

        peer.h2.increment_flow_control_window(1_000_000)
        peer.h2.increment_flow_control_window(1_000_000, stream)
        await peer.flush()

        assert len((await peer.end_of(stream)).messages[0]) == 100_096
        assert (await peer.end_of(other)).messages == [b""]


async def test_a_smaller_window_while_a_call_runs(server: Any) -> None:
    """A client may take back what it granted: the window is below zero for a while."""
    async with Peer(server.port, credits_itself=False) as peer:
        stream = await peer.begin("/test.Echo/Stream")
        await peer.send(stream, framed(b"x" * 40_000))
        while len(peer.answers[stream].data) < 40_005:
            await peer.receive()
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        await peer.send(stream, framed(b"y" * 10), ends=True)
        peer.h2.ping(b"12345678")
        await peer.flush()
        await peer.receive()
        assert len(peer.answers[stream].data) == 40_005

        peer.h2.increment_flow_control_window(50_000, stream)
        await peer.flush()

        assert (await peer.end_of(stream)).messages[1] == b"y" * 10


async def test_a_handler_that_does_not_read_holds_its_client_up(peer: Peer, echo: Echo) -> None:
    """The server takes a few megabytes; the rest waits at the client, and then comes whole."""
    stream = await peer.begin("/test.Echo/Slow")
    sent = 0
    message = framed(b"x" * 100_000)
    while peer.h2.local_flow_control_window(stream) >= len(message):
        await peer.send(stream, message)
        sent += 1
        peer.h2.ping(b"12345678")
        await peer.flush()
        await peer.receive()
    assert sent * len(message) < 4_000_000

    echo.go_on.set()
    for _ in range(30):
        await peer.send(stream, message)
    await peer.send(stream, b"", ends=True)

    assert (await peer.end_of(stream)).status == Status.OK
    assert [len(text) for text in echo.read] == [100_000] * (sent + 30)


async def test_a_client_that_does_not_read_holds_the_handler_up(server: Any, echo: Echo) -> None:
    """What it can't take is not gathered in memory."""
    async with Peer(server.port) as peer:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**31 - 1 - 65_535)
        await peer.begin("/test.Echo/Flood")
        [connection] = await wait_until_async(lambda: list(server._connections))
        await wait_until_async(lambda: connection.is_paused)
        written = len(echo.read)
        assert 0 < written * 10_000 < 50_000_000

        while len(echo.read) == written:
            await peer.receive()


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_compressed_requests(peer: Peer, encoding: str, compress: Any) -> None:
    """What clients may compress with, as the server advertises."""
    stream = await peer.begin("/test.Echo/Same", grpc_encoding=encoding)
    data = framed(compress(b"hello" * 1000), compressed=True)
    await peer.send(stream, data, ends=True)

    answer = await peer.end_of(stream)

    assert answer.messages == [b"hello" * 1000]
    assert encoding in answer.headers["grpc-accept-encoding"].split(",")


@pytest.mark.parametrize(
    ("encoding", "data", "status", "text"),
    [
        ("snappy", framed(b"x", compressed=True), Status.UNIMPLEMENTED, "snappy"),
        ("identity", framed(b"x", compressed=True), Status.INTERNAL, "decompress"),
        ("gzip", framed(b"x", compressed=True), Status.INTERNAL, "decompress"),
        (
            "gzip",
            framed(gzip.compress(b"x" * 100)[:-9], compressed=True),
            Status.INTERNAL,
            "cut off",
        ),
        (
            "gzip",
            framed(gzip.compress(bytes(30_000_000)), compressed=True),
            Status.RESOURCE_EXHAUSTED,
            "larger than max",
        ),
        ("identity", b"\0\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED, "larger than max"),
        ("identity", framed(b"hello")[:-1], Status.INTERNAL, "ends inside"),
        ("identity", b"", Status.UNIMPLEMENTED, "0 requests"),
        ("identity", framed(b"1") + framed(b"2"), Status.UNIMPLEMENTED, "2 requests"),
    ],
    # gzip's bytes hold the time: each process of xdist would have ids of its own.
    ids=["unknown", "none", "not-gzip", "half", "bomb", "huge", "cut-off", "no-message", "two"],
)
async def test_requests_that_are_none(
    peer: Peer, encoding: str, data: bytes, status: Status, text: str
) -> None:
    """Each ends its call with a status that says why; the connection goes on."""
    stream = await peer.begin("/test.Echo/Same", grpc_encoding=encoding)
    await peer.send(stream, data, ends=True)

    answer = await peer.end_of(stream)

    assert (answer.status, text in answer.text) == (status, True), answer.text
    assert (await peer.call("/test.Echo/Same", b"next")).messages == [b"next"]


async def test_a_stream_that_is_cut_off_ends_with_a_status(peer: Peer) -> None:
    """What was whole before is answered."""
    stream = await peer.begin("/test.Echo/Stream")
    await peer.send(stream, framed(b"whole") + framed(b"half")[:-1], ends=True)

    answer = await peer.end_of(stream)

    assert answer.messages == [b"whole"]
    assert answer.status == Status.INTERNAL


async def test_a_mistake_of_a_method_is_its_call_s_alone(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets UNKNOWN, the log the traceback."""
    answer = await peer.call("/test.Echo/Broken", b"")

    assert answer.status == Status.UNKNOWN
    assert "a mistake" in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert (await peer.call("/test.Echo/Same", b"next")).messages == [b"next"]


async def test_an_unknown_method(peer: Peer) -> None:
    """It is named."""
    answer = await peer.call("/test.Echo/Other", b"")

    assert answer.status == Status.UNIMPLEMENTED
    assert answer.text == "/test.Echo/Other is not supported by the test."


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content_type": "text/html"}, "415"),
        ({"grpc_timeout": "soon"}, "400"),
        ({"grpc_timeout": "123456789S"}, "400"),
    ],
)
async def test_what_is_no_call_of_grpc(peer: Peer, headers: dict[str, str], status: str) -> None:
    """An HTTP status, and the connection goes on."""
    answer = await peer.call("/test.Echo/Same", b"", **headers)

    assert answer.headers[":status"] == status
    assert (await peer.call("/test.Echo/Same", b"next")).messages == [b"next"]


async def test_a_deadline_ends_the_call_on_the_server_too(peer: Peer, echo: Echo) -> None:
    """Also if the client says nothing."""
    answer = await peer.call("/test.Echo/Never", b"", grpc_timeout="500m")

    assert answer.status == Status.DEADLINE_EXCEEDED
    await wait_until_async(echo.cancelled.is_set)


async def test_a_client_that_cancels_ends_the_method(peer: Peer, echo: Echo) -> None:
    """With RST_STREAM; others on the connection go on."""
    stream = await peer.begin("/test.Echo/Never")
    await peer.send(stream, framed(b""), ends=True)
    await echo.begun.wait()

    peer.h2.reset_stream(stream, CANCEL)
    await peer.flush()

    await wait_until_async(echo.cancelled.is_set)
    assert (await peer.call("/test.Echo/Same", b"next")).messages == [b"next"]


async def test_a_client_that_goes_away_ends_its_methods(server: Any, echo: Echo) -> None:
    """However it goes."""
    async with Peer(server.port) as peer:
        stream = await peer.begin("/test.Echo/Never")
        await peer.send(stream, framed(b""), ends=True)
        await echo.begun.wait()
        peer.writer.transport.abort()

    await wait_until_async(echo.cancelled.is_set)
    await wait_until_async(lambda: not server.has_clients)


async def test_nothing_is_kept_of_calls_that_are_over(peer: Peer, server: Any) -> None:
    """Whether they ended well, badly, early or were cancelled."""
    for path in ("Same", "Broken", "Other"):
        await peer.call(f"/test.Echo/{path}", b"")
    await peer.call("/test.Echo/Never", b"", grpc_timeout="1m")
    stream = await peer.begin("/test.Echo/Stream")
    peer.h2.reset_stream(stream, CANCEL)
    await peer.flush()
    await peer.call("/test.Echo/Same", b"")

    [connection] = server._connections
    await wait_until_async(lambda: connection.http2.calls == {})


async def test_stopping_lets_calls_end(server: Any) -> None:
    """What ends within the grace ends well, and the server with it."""
    channel: Any
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = channel.stream_stream("/test.Echo/Stream")()
        await running.write(b"1")
        assert await running.read() == b"1"

        stopping = asyncio.create_task(server.stop(PATIENCE))
        [connection] = server._connections
        await wait_until_async(lambda: connection.http2.is_leaving)
        await running.write(b"2")
        await running.done_writing()

        assert await running.read() == b"2"
        assert await running.code() == grpc.StatusCode.OK
        await stopping


async def test_stopping_ends_what_goes_on(server: Any, echo: Echo) -> None:
    """After the grace it gets UNAVAILABLE; no client can connect."""
    channel: Any
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stuck = channel.unary_unary("/test.Echo/Never")(b"")
        await echo.begun.wait()

        await server.stop(0.1)

        assert await stuck.code() == grpc.StatusCode.UNAVAILABLE
        await wait_until_async(echo.cancelled.is_set)
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_small_frames_are_not_held_back(peer: Peer, server: Any) -> None:
    """Without TCP_NODELAY an answer in two parts waits 40 ms for an acknowledgement."""
    await peer.call("/test.Echo/Same", b"")
    [connection] = server._connections
    connected = connection._transport.get_extra_info("socket")

    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_name_for_several_addresses_has_one_port(echo: Echo) -> None:
    """localhost is 127.0.0.1, and ::1 where there is one."""
    server = GrpcServer(echo.methods(), name="the test")
    port = await server.listen("localhost", 0)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            "localhost", port, type=socket.SOCK_STREAM
        )
        addresses = {entry[4][0] for entry in found}
        bound = {s.getsockname()[:2] for at in server._listeners for s in at.sockets}
        assert ("127.0.0.1", port) in bound
        assert {address for address, _ in bound} <= addresses
        assert {number for _, number in bound} == {port}
    finally:
        await server.stop(0)


async def test_a_port_is_not_shared(server: Any, echo: Echo) -> None:
    """Two servers of one port would each get some of the connections."""
    with pytest.raises(OSError, match="in use"):
        await GrpcServer(echo.methods(), name="another").listen("127.0.0.1", server.port)


async def test_google_s_client_with_compression(server: Any) -> None:
    """As pubsub_v1's enable_grpc_compression sends."""
    channel: Any
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{server.port}", compression=grpc.Compression.Gzip
    ) as channel:
        call = channel.unary_unary("/test.Echo/Same")
        assert await call(b"hello" * 10_000) == b"hello" * 10_000


async def test_metadata_and_text_outside_of_ascii() -> None:
    """grpc-message is percent-encoded, -bin values are base64."""

    async def refuse(_request: Text, _call: Call) -> Text:
        raise CallError(
            Status.FAILED_PRECONDITION, "100 % für\nTopic „x“", (("detail-bin", b"\0\xff" * 200),)
        )

    server = GrpcServer({"/t.T/No": Method(refuse, Text)}, name="t", metadata=[("who", "the test")])
    port = await server.listen("127.0.0.1", 0)
    channel: Any
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/t.T/No")(b"")
            assert dict(await call.initial_metadata())["who"] == "the test"
            assert await call.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert await call.details() == "100 % für\nTopic „x“"
            assert dict(await call.trailing_metadata())["detail-bin"] == b"\0\xff" * 200
    finally:
        await server.stop(0)


async def test_a_call_that_is_cancelled_in_the_bytes_that_begin_it(peer: Peer, echo: Echo) -> None:
    """It has begun by then, and is cancelled where it waits."""
    stream = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(stream, request_headers("/test.Echo/Never"))
    peer.h2.send_data(stream, framed(b""), end_stream=True)
    peer.h2.reset_stream(stream, CANCEL)
    await peer.flush()

    await wait_until_async(echo.cancelled.is_set)
    assert (await peer.call("/test.Echo/Same", b"next")).messages == [b"next"]


async def test_calls_that_wait_for_the_same_thing(peer: Peer, server: Any) -> None:
    """As all that is published in one turn waits for one commit."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(request: Text, _call: Call) -> Text:
        await future
        return request

    server.service.methods["/test.Echo/Wait"] = Method(wait, Text)
    streams = []
    for number in range(5):
        streams.append(stream := peer.h2.get_next_available_stream_id())
        peer.h2.send_headers(stream, request_headers("/test.Echo/Wait"))
        peer.h2.send_data(stream, framed(b"%d" % number), end_stream=True)
    await peer.flush()
    [connection] = server._connections
    await wait_until_async(lambda: len(connection.http2.calls) == len(streams))
    future.set_result(None)

    answers = [await peer.end_of(stream) for stream in streams]

    assert [answer.messages for answer in answers] == [[b"%d" % n] for n in range(5)]
