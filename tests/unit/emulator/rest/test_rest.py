"""HTTP/1.1 on gRPC's port: what is served, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from convotic_emulator.server import EmulatorServer
from tests.support.waiting import PATIENCE, wait_until_async
from tests.unit.emulator.client import Client

TOPIC = b'"name": "projects/p/topics/orders"'


@pytest.fixture
async def server() -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer() as running:
        yield running


async def exchange(server: EmulatorServer, data: bytes) -> bytes:
    """Send bytes, half-close, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        received = await reader.read()
    writer.close()
    return received


def request(verb: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a request's bytes."""
    lines = [f"{verb} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(server: EmulatorServer) -> None:
    """As documentation and scripts have it."""
    base = f"http://{server.address}/v1/projects/p"

    async def curl(*arguments: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "--max-time", f"{PATIENCE:g}", *arguments, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return json.loads(out)

    await curl("-X", "PUT", f"{base}/topics/orders")
    topic = {"topic": "projects/p/topics/orders"}
    await curl("-X", "PUT", f"{base}/subscriptions/sub", "-d", json.dumps(topic))
    large = json.dumps({"messages": [{"data": "eHh4" * 500_000}]})  # curl asks first: 100-continue
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-d", "@-", f"{base}/topics/orders:publish",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    published, _ = await process.communicate(large.encode())
    pulled = await curl("-d", '{"maxMessages": 1}', f"{base}/subscriptions/sub:pull")

    [received] = pulled["receivedMessages"]
    assert [received["message"]["messageId"]] == json.loads(published)["messageIds"]
    assert len(received["message"]["data"]) == 2_000_000


async def test_several_requests_on_one_connection(server: EmulatorServer) -> None:
    """Sent together, answered in their order."""
    received = await exchange(
        server,
        request("PUT", "/v1/projects/p/topics/orders")
        + request("GET", "/v1/projects/p/topics/orders")
        + request("GET", "/v1/projects/p/topics/missing", b"", "Connection: close")
        + request("GET", "/"),
    )

    assert [line[9:12] for line in received.split(b"\n") if line.startswith(b"HTTP/")] == [
        b"200",
        b"200",
        b"404",
    ]


async def test_a_body_in_chunks(server: EmulatorServer) -> None:
    """As clients that stream send it."""
    head = b"PUT /v1/projects/p/topics/orders HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'5\r\n{"lab\r\n12;x=y\r\nels": {"a": "b"}}\r\n0\r\n\r\n'

    received = await exchange(server, head + body)

    assert b'"a": "b"' in received


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/projects/p/topics/a%2Bb%7Ec", "projects/p/topics/a+b~c"),
        ("/v1/projects/example.com:p/topics/orders", "projects/example.com:p/topics/orders"),
    ],
)
async def test_names_in_urls(server: EmulatorServer, path: str, name: str) -> None:
    """Percent-encoded, and projects of a domain."""
    received = await exchange(server, request("PUT", path))

    assert f'"name": "{name}"'.encode() in received


async def test_a_health_check(server: EmulatorServer) -> None:
    """Google's emulator answers so, and compose files ask for it."""
    received = await exchange(server, request("GET", "/"))

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nOk\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 400),
        (b"GET /" + b"x" * 100_000, 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (request("GET", "/v1/projects/p/queues"), 404),
        (request("POST", "/v1/projects/p/topics/orders"), 404),
        (request("PUT", "/v1/projects/p/topics/orders", b"{"), 400),
        (request("PUT", "/v1/projects/p/topics/orders", b"[1]"), 400),
        (request("PUT", "/v1/projects/p/topics/orders", b"[" * 100_000), 400),
        (request("PUT", "/v1/projects/p/topics/orders", b"\xff\xfe"), 400),
        (request("PUT", "/v1/projects/p/topics/orders", b'{"labels": 5}'), 400),
        (request("GET", "/v1/projects/p/topics?pageSize=many"), 400),
        (request("GET", "/v1/projects/p/topics?a.b=1&a=2&a.b=3"), 400),
        (request("PUT", "/v1/projects/p/topics/orders", b"", "Origin: http://evil.example"), 403),
    ],
)
async def test_what_is_refused(server: EmulatorServer, sent: bytes, status: int) -> None:
    """With Google's form of errors; a client of gRPC does not notice."""
    received = await exchange(server, sent)

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["code"] == status
    async with Client(server) as client:
        await client.create()


async def test_exactly_once_names_what_failed(server: EmulatorServer) -> None:
    """The details of gRPC's status are JSON too."""
    async with Client(server) as client:
        await client.create(enable_exactly_once_delivery=True)
        await client.publish(b"x")
        pulled = await client.pull()
        await client.acknowledge(pulled)
        path = "/v1/projects/p/subscriptions/orders.sub:acknowledge"
        body = json.dumps({"ackIds": [pulled[0].ack_id]}).encode()

        received = await exchange(server, request("POST", path, body))

    [detail] = json.loads(received.partition(b"\r\n\r\n")[2])["error"]["details"]
    assert detail["reason"] == "EXACTLY_ONCE_ACKID_FAILURE"
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"


async def test_a_client_that_goes_away_gives_up_its_pull(server: EmulatorServer) -> None:
    """The next message is not leased to it."""
    async with Client(server) as client:
        await client.create()
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        path = "/v1/projects/p/subscriptions/orders.sub:pull"
        writer.write(request("POST", path, b'{"maxMessages": 1}'))
        engine = server.engine
        state = engine.registry.subscription("projects/p/subscriptions/orders.sub").state
        await wait_until_async(lambda: engine.dispatcher.has_waiters(state))

        writer.transport.abort()

        await wait_until_async(lambda: not engine.dispatcher.has_waiters(state))
        await client.publish(b"x")
        assert [entry.message.data for entry in await client.pull()] == [b"x"]


async def test_a_waiting_pull_ends_with_the_server() -> None:
    """Stopping does not wait for it."""
    async with EmulatorServer() as server, Client(server) as client:
        await client.create()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        path = "/v1/projects/p/subscriptions/orders.sub:pull"
        writer.write(request("POST", path, b'{"maxMessages": 1}'))
        state = server.engine.registry.subscription("projects/p/subscriptions/orders.sub").state
        dispatcher = server.engine.dispatcher
        await wait_until_async(lambda: dispatcher.has_waiters(state))

        await server.stop()

        assert b"UNAVAILABLE" in await reader.read()
        writer.close()
