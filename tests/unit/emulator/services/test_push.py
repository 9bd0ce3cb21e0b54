"""Push delivery on the server's clock: back-off, ordering, restarts, unavailable endpoints."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from google.auth import jwt as google_jwt
from google.pubsub_v1.types import pubsub as t

from convotic_emulator.engine.clock import ManualClock
from convotic_emulator.server import EmulatorServer
from convotic_emulator.services import push
from tests.support.http_endpoint import Endpoint, Request
from tests.support.ports import free_port
from tests.support.waiting import wait_until_async
from tests.unit.emulator.client import SUBSCRIPTION, Client


def data_of(request: Request) -> bytes:
    return base64.b64decode(json.loads(request.body)["message"]["data"])


def config(endpoint: Endpoint) -> Any:
    return t.PushConfig.pb()(push_endpoint=endpoint.url)


async def test_the_back_off_doubles() -> None:
    """0.1, 0.2, 0.4 seconds: of the whole subscription, when it has no retry policy."""
    clock = ManualClock()
    pauses: list[float] = []
    with Endpoint(500, 500, 500) as endpoint:
        async with EmulatorServer(clock=clock) as server, Client(server) as client:

            def pause() -> float:
                next_us = server.engine.broker.timers.next_us() or clock.now_us() + 10**7
                seconds = (next_us - clock.now_us()) / 1e6
                return seconds if seconds < 5 else 0  # else it is the lease's end

            await client.create(push_config=config(endpoint))
            await client.publish(b"x")
            for _ in range(3):
                pauses.append(await wait_until_async(pause))
                clock.advance(pauses[-1])
            await wait_until_async(lambda: len(endpoint.requests) == 4)
            number = server.engine.registry.subscriptions[SUBSCRIPTION].row.number
            await wait_until_async(lambda: server.engine.store.counts.messages(number) == 0)
    assert pauses == [0.1, 0.2, 0.4]


async def test_messages_of_a_key_are_pushed_in_order() -> None:
    """The next one waits until the endpoint has taken the one before; a refused one is first."""
    with Endpoint(503) as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            await client.create(push_config=config(endpoint), enable_message_ordering=True)

            await client.publish(*[b"%d" % n for n in range(20)], ordering_key="k")

            await wait_until_async(lambda: len(endpoint.requests) == 21)
    assert [int(data_of(r)) for r in endpoint.requests] == [0, *range(20)]


async def test_a_dead_letter_policy_counts_pushes() -> None:
    """deliveryAttempt is in the envelope."""
    with Endpoint(500) as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            dead = "projects/p/topics/dead"
            await client.call("Publisher/CreateTopic", t.Topic.pb()(name=dead), t.Topic.pb())
            policy = t.DeadLetterPolicy.pb()(dead_letter_topic=dead, max_delivery_attempts=5)
            await client.create(push_config=config(endpoint), dead_letter_policy=policy)

            await client.publish(b"x")

            await wait_until_async(lambda: len(endpoint.requests) == 2)
    assert [json.loads(r.body)["deliveryAttempt"] for r in endpoint.requests] == [1, 2]


async def test_pushing_goes_on_after_a_restart_and_an_outage(tmp_path: Path) -> None:
    """The endpoint was unavailable, then the server; the message arrives."""
    clock = ManualClock()
    gone = t.PushConfig.pb()(push_endpoint=f"http://127.0.0.1:{free_port()}/push")
    path = tmp_path / "data.sqlite3"
    async with EmulatorServer(path, clock=clock) as server, Client(server) as client:
        await client.create(push_config=gone)
        await client.publish(b"x")
        await wait_until_async(lambda: server.engine.broker.timers.next_us() is not None)

    with Endpoint() as endpoint:
        async with EmulatorServer(path, clock=clock) as server, Client(server) as client:
            request = t.ModifyPushConfigRequest.pb()(
                subscription=SUBSCRIPTION, push_config=config(endpoint)
            )
            await client.call("Subscriber/ModifyPushConfig", request)
            clock.advance(601)
            await wait_until_async(lambda: endpoint.requests)
    assert data_of(endpoint.requests[0]) == b"x"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/push", grpc.StatusCode.UNIMPLEMENTED),
        ("http://example.com/push", grpc.StatusCode.UNIMPLEMENTED),
        ("http://127.0.0.1.example.com/", grpc.StatusCode.UNIMPLEMENTED),
        ("http://127.0.0.1:80/a b", grpc.StatusCode.INVALID_ARGUMENT),
        ("http://127.0.0.1:80/a\r\nX: y", grpc.StatusCode.INVALID_ARGUMENT),
        ("ftp://127.0.0.1/", grpc.StatusCode.INVALID_ARGUMENT),
        ("http://", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_endpoints_elsewhere_are_refused(url: str, code: grpc.StatusCode) -> None:
    """This machine only, unless a host is allowed; nothing that breaks a request line."""
    async with EmulatorServer() as server, Client(server) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.create(push_config=t.PushConfig.pb()(push_endpoint=url))
    assert refused.value.code() is code


async def test_a_host_may_be_allowed() -> None:
    """By name, in any case; https too. Others stay refused."""
    async with EmulatorServer(push_hosts=["My-Service"]) as server, Client(server) as client:
        await client.create(push_config=t.PushConfig.pb()(push_endpoint="http://my-service:8080/"))
        request = t.ModifyPushConfigRequest.pb()(subscription=SUBSCRIPTION)
        request.push_config.push_endpoint = "https://MY-SERVICE/push"
        await client.call("Subscriber/ModifyPushConfig", request)

        request.push_config.push_endpoint = "http://other/push"
        with pytest.raises(grpc.aio.AioRpcError, match="--push-host other") as refused:
            await client.call("Subscriber/ModifyPushConfig", request)

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_token_is_signed_with_the_key_that_is_served() -> None:
    """Google's own library takes it, with our key set; audience and email are as asked for."""
    email = "pusher@p.iam.gserviceaccount.com"
    with Endpoint() as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            wanted = config(endpoint)
            wanted.oidc_token.service_account_email = email
            await client.create(push_config=wanted)
            await client.publish(b"x")
            await wait_until_async(lambda: endpoint.requests)
            async with httpx.AsyncClient(trust_env=False) as browser:
                answer = await browser.get(f"http://{server.address}/.well-known/jwks.json")
    kind, _, token = endpoint.requests[0].headers["authorization"].partition(" ")
    [key] = answer.json()["keys"]

    claims: Any = google_jwt.decode(token, {key["kid"]: pem(key)}, audience=endpoint.url)  # type: ignore[no-untyped-call]  # google-auth's

    assert kind == "Bearer"
    assert claims["email"] == email
    assert claims["email_verified"] is True
    assert claims["iss"] == "https://accounts.google.com"


def pem(key: dict[str, str]) -> bytes:
    """Return a key of a key set as PEM."""
    e, n = (
        int.from_bytes(base64.urlsafe_b64decode(key[part] + "=" * (-len(key[part]) % 4)))
        for part in ("e", "n")
    )
    public = rsa.RSAPublicNumbers(e, n).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def test_a_token_needs_a_service_account() -> None:
    """INVALID_ARGUMENT without one."""
    with Endpoint() as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            wanted = config(endpoint)
            wanted.oidc_token.audience = "somebody"
            with pytest.raises(grpc.aio.AioRpcError, match="service_account_email") as refused:
                await client.create(push_config=wanted)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_https_is_pushed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is checked: of an authority that the server knows, by SSL_CERT_FILE here."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(self_signed("localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    push._tls.cache_clear()
    with Endpoint(certificate=certificate) as endpoint:
        async with EmulatorServer() as server, Client(server) as client:
            await client.create(push_config=config(endpoint))
            await client.publish(b"x")
            await wait_until_async(lambda: endpoint.requests)
    push._tls.cache_clear()
    assert endpoint.url.startswith("https://localhost:")
    assert data_of(endpoint.requests[0]) == b"x"


def self_signed(host: str) -> bytes:
    """Return a key and a certificate of a host, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
