"""Credentials that expire, over TLS: logged once, with what to do; over when they are renewed."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.faulty import FaultyServer
from tests.support.waiting import PATIENCE

#: In a process of its own: gRPC reads the root certificates once a process.
SCRIPT = """
import json, logging, sys
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError
from convotic_pubsub.errors import PublishError
from tests.support.pubsub import Harness, make_spec

class Changing(Credentials):
    token_now, asked, valid = "good", 0, False  # not valid: asked for each call

    def refresh(self, request):
        self.asked += 1
        if self.token_now is None:
            raise RefreshError("Reauthentication is needed.")
        self.token = self.token_now

class Keep(logging.Handler):
    def emit(self, record):
        said.append((getattr(record, "action", record.name), record.levelname, record.getMessage()))

said = []
logging.basicConfig(handlers=[Keep()], level="INFO")
credentials = Changing()
one = Harness(None, make_spec(), endpoint=sys.argv[1], credentials=credentials, pull_mode="unary")
one.on_message = lambda message: message.ack()
one.publish(1)
one.session.publisher._timeout_seconds = 0.5  # of what is refused, not of the connection's start

credentials.token_now = json.loads(sys.argv[2])
asked = credentials.asked
one.consume()
one.drain_until(lambda: credentials.asked >= asked + 4)
try:
    one.publish(0)
except PublishError as error:
    refused = str(error)

credentials.token_now = "good"
one.drain_until(lambda: one.bodies == [1])
one.close()
print(json.dumps({"said": said, "refused": refused}))
"""


class TokenServer(FaultyServer):
    """Passes on what comes with the right token."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method, or of a refusal."""
        metadata = dict(handler_call_details.invocation_metadata)
        if metadata.get("authorization") == "Bearer good":
            return super().service(handler_call_details)

        def refuse(_request: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


@dataclass
class Service:
    """Where it is, and the certificate to trust."""

    address: str
    root: Path


@pytest.fixture
def service(our_emulator: str, tmp_path: Path) -> Iterator[Service]:
    """Our emulator behind TLS and a check of tokens, as the service is."""
    key, certificate = make_certificate()
    root = tmp_path / "root.pem"
    root.write_bytes(certificate)
    tokens = TokenServer(our_emulator)
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((tokens,))
    secure = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", secure)
    server.start()
    try:
        yield Service(f"127.0.0.1:{port}", root)
    finally:
        server.stop(None).wait()
        tokens.close()


def make_certificate() -> tuple[bytes, bytes]:
    """Return a key and a certificate of it for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem)


@pytest.mark.parametrize(
    ("token", "cause"),
    [("expired", "invalid credentials"), (None, "Reauthentication is needed")],
    ids=["refused by the server", "renewal fails"],
)
def test_expired_credentials_are_said_once_and_over_when_renewed(
    service: Service, token: str | None, cause: str
) -> None:
    """One ERROR with subscription, cause and remedy; a publish raises it; then all goes on."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, service.address, json.dumps(token)],
        env=os.environ | {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(service.root)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=3 * PATIENCE,
        check=True,
    )
    outcome = json.loads(done.stdout)
    ((_, level, text),) = [each for each in outcome["said"] if each[0] == "pull_failed"]
    assert level == "ERROR"
    assert "/subscriptions/orders" in text
    for message in (text, outcome["refused"]):
        assert cause in message
        assert "check the credentials" in message
    said = [name for name, level, _ in outcome["said"] if level != "INFO" or "pull" in name]
    assert said == ["pull_failed", "pull_recovered"]
