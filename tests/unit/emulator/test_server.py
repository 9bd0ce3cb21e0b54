"""The server in process, with a clock that tests move."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, TOPIC, Client, bodies

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[EmulatorServer]:
    async with EmulatorServer(clock=clock) as running:
        yield running


@pytest.fixture
async def client(server: EmulatorServer) -> AsyncIterator[Client]:
    async with Client(server) as connected:
        yield connected


async def test_the_clock_ends_leases(client: Client, clock: ManualClock) -> None:
    """Ten seconds pass without waiting."""
    await client.create()
    await client.publish(b"x")
    assert bodies(await client.pull()) == [b"x"]

    clock.advance(9.9)
    assert await client.pull() == []
    clock.advance(0.2)

    assert bodies(await wait_until_async(client.pull)) == [b"x"]


async def test_back_off_doubles_up_to_its_maximum(client: Client, clock: ManualClock) -> None:
    """10, 20, 40, 40 seconds."""
    policy = t.RetryPolicy.pb()()
    policy.minimum_backoff.seconds, policy.maximum_backoff.seconds = 10, 40
    await client.create(retry_policy=policy)
    await client.publish(b"x")

    for seconds in (10, 20, 40, 40):
        await client.modify(await wait_until_async(client.pull), 0)
        clock.advance(seconds - 0.1)
        assert await client.pull() == []
        clock.advance(0.2)

    assert bodies(await wait_until_async(client.pull)) == [b"x"]


async def test_messages_are_dropped_after_their_retention(
    server: EmulatorServer, client: Client, clock: ManualClock
) -> None:
    """At once for who pulls; from the file at the next tidying."""
    await client.create(message_retention_duration=duration_pb2.Duration(seconds=600))
    await client.publish(b"old")
    clock.advance(590)
    await client.publish(b"young")
    clock.advance(11)

    assert bodies(await client.pull()) == [b"young"]

    number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
    while server.engine.upkeep.sweep():
        pass
    assert server.engine.store.counts.messages(number) == 1


async def test_a_pull_does_not_delete_what_has_expired(
    server: EmulatorServer, client: Client, clock: ManualClock
) -> None:
    """However much it is: the pull goes on behind it."""
    await client.create(message_retention_duration=duration_pb2.Duration(seconds=600))
    for _ in range(3):
        await client.publish(*[b"old"] * 1000)
    clock.advance(601)
    await client.publish(b"young")

    assert bodies(await client.pull()) == [b"young"]

    number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
    assert server.engine.store.counts.messages(number) == 3001


async def test_an_unused_subscription_expires(
    server: EmulatorServer, client: Client, clock: ManualClock
) -> None:
    """After 31 days by default; a pull counts as use."""
    await client.create()
    clock.advance(30 * DAY)
    await client.pull()
    clock.advance(30 * DAY)
    assert server.engine.broker.maintain(lambda _state: False) == []

    clock.advance(2 * DAY)

    assert server.engine.broker.maintain(lambda _state: False) == [SUBSCRIPTION]


async def test_never_means_never(
    server: EmulatorServer, client: Client, clock: ManualClock
) -> None:
    """An expiration policy without ttl."""
    await client.create(expiration_policy=t.ExpirationPolicy.pb()())

    clock.advance(1000 * DAY)

    assert server.engine.broker.maintain(lambda _state: False) == []


async def test_a_backlog_nobody_reads_is_not_in_memory(
    server: EmulatorServer, client: Client
) -> None:
    """Ten thousand messages wait in the file; a page at most is read for a pull."""
    await client.create()
    for _ in range(10):
        await client.publish(*[b"x" * 100] * 1000)
    state = server.engine.registry.subscriptions[SUBSCRIPTION].state
    assert len(state.backlog.ready) == 0

    received = await client.pull(10)

    assert len(received) == 10
    assert len(state.backlog.ready) <= 1000
    assert len(state.outstanding) == 10


async def test_a_deleted_backlog_is_swept_away(server: EmulatorServer, client: Client) -> None:
    """The deletion answers at once; the rows go in slices; a successor starts empty."""
    await client.create()
    number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
    for _ in range(5):
        await client.publish(*[b"x"] * 1000)

    request = t.DeleteSubscriptionRequest.pb()(subscription=SUBSCRIPTION)
    await client.call("Subscriber/DeleteSubscription", request)

    subscription = t.Subscription.pb()(name=SUBSCRIPTION, topic=TOPIC)
    await client.call("Subscriber/CreateSubscription", subscription, t.Subscription.pb())
    assert await client.pull() == []
    await wait_until_async(lambda: server.engine.store.backlogs.oldest_us(number) is None)


async def test_delivered_data_is_dropped_from_memory(
    server: EmulatorServer, client: Client
) -> None:
    """What is outstanding costs its name, not its content."""
    await client.create()
    await client.publish(b"x" * 10_000)

    await client.pull()

    state = server.engine.registry.subscriptions[SUBSCRIPTION].state
    assert [m.body for m in state.outstanding.values()] == [None]


async def test_leases_and_attempts_survive_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """The message is still leased, its ack id still works, and attempts go on counting."""
    path = tmp_path / "data"
    async with EmulatorServer(path, clock=clock) as first, Client(first) as client:
        await client.create()
        state = first.engine.registry.subscriptions[SUBSCRIPTION]
        policy = state.proto.dead_letter_policy
        policy.dead_letter_topic = "projects/p/topics/orders"
        policy.max_delivery_attempts = 5
        first.engine.registry.save(state)
        await client.publish(b"held", b"nacked")
        held, nacked = await client.pull()
        await client.modify([nacked], 0)

    async with EmulatorServer(path, clock=clock) as second, Client(second) as client:
        again = await client.pull()
        assert [(m.message.data, m.delivery_attempt) for m in again] == [(b"nacked", 2)]
        await client.acknowledge([held])
        clock.advance(11)
        received: list[Any] = await wait_until_async(client.pull)
        [last] = received
        assert (last.message.data, last.delivery_attempt) == (b"nacked", 3)


async def test_a_lease_that_ended_while_the_server_was_off(
    tmp_path: Path, clock: ManualClock
) -> None:
    """It counts as a lapse when the server is back."""
    path = tmp_path / "data"
    async with EmulatorServer(path, clock=clock) as first, Client(first) as client:
        await client.create()
        await client.publish(b"x")
        [old] = await client.pull()

    clock.advance(60)

    async with EmulatorServer(path, clock=clock) as second, Client(second) as client:
        [new] = await client.pull()
        assert new.ack_id != old.ack_id
        await client.acknowledge([old])
        assert len(second.engine.registry.subscriptions[SUBSCRIPTION].state.outstanding) == 1


async def test_order_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """A nacked message of a key waits for the leased one after it, then both come in order."""
    path = tmp_path / "data"
    async with EmulatorServer(path, clock=clock) as first, Client(first) as client:
        await client.create(enable_message_ordering=True)
        await client.publish(b"1", b"2", b"3", ordering_key="k")
        received = await client.pull(2)
        await client.modify(received[:1], 0)

    async with EmulatorServer(path, clock=clock) as second, Client(second) as client:
        assert await client.pull() == []
        clock.advance(11)
        assert bodies(await wait_until_async(client.pull)) == [b"1", b"2", b"3"]


async def test_a_seek_voids_acknowledgements_that_were_kept_back(
    client: Client, clock: ManualClock
) -> None:
    """What was acknowledged ahead of the first of its key is redelivered, as all of its key is."""
    await client.create(enable_message_ordering=True, retain_acked_messages=True)
    await client.publish(b"1", b"2", ordering_key="k")
    first, second = await client.pull()
    await client.acknowledge([second])
    seek = t.SeekRequest.pb()(subscription=SUBSCRIPTION)
    seek.time.seconds = 1
    await client.call("Subscriber/Seek", seek, t.SeekResponse.pb())

    await client.acknowledge([first])
    again = await client.pull()

    assert bodies(again) == [b"1", b"2"]
    await client.acknowledge([first, second])
    clock.advance(11)
    assert bodies(await client.pull()) == [b"1", b"2"]


async def test_a_failing_file_stops_the_server(
    server: EmulatorServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE for the request that met it; wait_failed() raises for the owner."""
    await client.create()

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(server.engine.store, "commit", fail)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.publish(b"x")

    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(sqlite3.OperationalError):
        await server.wait_failed()
    monkeypatch.undo()


async def test_a_busy_stream_ends_with_its_subscription(
    server: EmulatorServer, client: Client
) -> None:
    """Also one that was just sending when the subscription was deleted or detached."""
    await client.create()
    await client.publish(*[b"x" * 3_000_000] * 3)
    stream = await client.stream()
    subscription = server.engine.registry.subscriptions[SUBSCRIPTION]
    await wait_until_async(lambda: subscription.state.outstanding)

    await client.call(
        "Publisher/DetachSubscription",
        t.DetachSubscriptionRequest.pb()(subscription=SUBSCRIPTION),
        t.DetachSubscriptionResponse.pb(),
    )

    with pytest.raises(grpc.aio.AioRpcError, match="detached") as ended:
        await read_all(stream)
    assert ended.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def read_all(stream: Any) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def test_stopping_ends_streams_and_waiting_pulls(clock: ManualClock) -> None:
    """With UNAVAILABLE, which clients retry; and starting and stopping twice does no harm."""
    server = EmulatorServer(clock=clock)
    await server.start()
    await server.start()
    async with Client(server) as client:
        await client.create()
        function: Any = client.channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=t.StreamingPullRequest.pb().SerializeToString,
            response_deserializer=t.StreamingPullResponse.pb().FromString,
        )
        stream = function()
        first = t.StreamingPullRequest.pb()(
            subscription=SUBSCRIPTION, stream_ack_deadline_seconds=10
        )
        await stream.write(first)
        await stream.initial_metadata()

        await server.stop()
        await server.stop()

        assert await stream.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_stream_has_its_own_deadline(
    server: EmulatorServer, client: Client, clock: ManualClock
) -> None:
    """Ten seconds instead of the subscription's 600; another one for what comes after a change."""
    await client.create(ack_deadline_seconds=600)
    method: Any = client.channel.stream_stream(
        "/google.pubsub.v1.Subscriber/StreamingPull",
        request_serializer=t.StreamingPullRequest.pb().SerializeToString,
        response_deserializer=t.StreamingPullResponse.pb().FromString,
    )
    stream = method()
    request = t.StreamingPullRequest.pb()
    await stream.write(request(subscription=SUBSCRIPTION, stream_ack_deadline_seconds=10))
    state = server.engine.registry.subscriptions[SUBSCRIPTION].state
    for deadline, change in ((10, 30), (30, 10)):
        await client.publish(b"%d" % deadline)
        assert bodies((await stream.read()).received_messages) == [b"%d" % deadline]
        clock.advance(deadline - 0.1)
        assert len(state.outstanding) == 1
        clock.advance(0.2)
        [again] = (await stream.read()).received_messages
        await stream.write(request(ack_ids=[again.ack_id], stream_ack_deadline_seconds=change))
        await wait_until_async(lambda: not state.outstanding)
    stream.cancel()


async def test_pings_are_allowed(server: EmulatorServer) -> None:
    """As often as a client likes: the connection stays."""
    frame = struct.Struct("!BHBBI")  # HTTP/2: length (24 bits), type, flags, stream
    settings, ping, goaway = 4, 6, 7
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame.pack(0, 0, settings, 0, 0))
    writer.write((frame.pack(0, 8, ping, 0, 0) + b"12345678") * 20)

    answered = 0
    while answered < 20:
        high, low, kind, _, _ = frame.unpack(await reader.readexactly(frame.size))
        await reader.readexactly(high << 16 | low)
        assert kind != goaway
        answered += kind == ping

    writer.close()
    await writer.wait_closed()


async def test_two_servers_do_not_share_a_port(server: EmulatorServer) -> None:
    """The second is refused."""
    second = EmulatorServer(port=server.port)

    with pytest.raises(OSError, match="listen"):
        await second.start()


async def test_another_host_is_a_warning(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no authentication."""
    async with EmulatorServer(host="0.0.0.0", clock=clock):
        pass

    assert "no authentication" in caplog.text


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_an_ipv6_address_has_brackets(clock: ManualClock, host: str) -> None:
    """As clients take it."""
    async with EmulatorServer(host=host, clock=clock) as server, Client(server) as client:
        await client.create()

        assert server.address == f"[::1]:{server.port}"


async def test_text_that_is_not_utf_8_is_an_invalid_argument(client: Client) -> None:
    """In an attribute, say; the client gets the reason, and the server has no error."""
    await client.create()
    request = t.PublishRequest.pb()(topic=TOPIC)
    request.messages.add(data=b"x", attributes={"key": "abc"})
    channel: Any = client.channel
    function = channel.unary_unary("/google.pubsub.v1.Publisher/Publish")

    with pytest.raises(grpc.aio.AioRpcError, match="UTF-8") as refused:
        await function(request.SerializeToString().replace(b"abc", b"\xff\xfe\xfd"))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["projects/p/topics/" + "x" * 20_000, "é" * 10_000])
async def test_an_error_that_quotes_long_input_arrives(client: Client, name: str) -> None:
    """A longer text would be a failed call to most clients: RESOURCE_EXHAUSTED, to be retried."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.call("Publisher/CreateTopic", t.Topic.pb()(name=name), t.Topic.pb())

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
