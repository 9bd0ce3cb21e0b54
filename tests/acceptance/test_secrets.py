"""Secrets: the store over TLS with a password that no log, command, page or error shows."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import subprocess
import sys
from collections.abc import Iterator
from os import environ
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.acceptance.commands import convotic
from tests.acceptance.stage import Stage
from tests.acceptance.test_flower import run_flower
from tests.support.proxy import run_proxy
from tests.support.valkey import run_valkey
from tests.support.waiting import PATIENCE, wait_until

SECRET = "sesame-5f1c"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / "store.pem", folder / "store.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_file


@pytest.fixture
def guarded(embedded_stage: Stage, tmp_path: Path) -> Iterator[Stage]:
    """A stage whose store asks for a password, over TLS."""
    pem, key = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem, key)
    with run_valkey() as server:
        redis.Redis.from_url(server.url).config_set("requirepass", SECRET)
        with run_proxy(server.url.removeprefix("unix://"), tls) as proxy:
            embedded_stage.environment["CONVOTIC_REDIS_URL"] = (
                f"rediss://:{SECRET}@{proxy.address}/0?ssl_ca_certs={pem}"
            )
            yield embedded_stage


def run(stage: Stage, *command: str) -> str:
    """Run a program; return all that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=stage.folder,
        env=environ | stage.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.stdout + done.stderr


def test_a_store_over_tls_with_a_password_that_nobody_sees(guarded: Stage) -> None:
    """Messages run, and neither logs, reports, commands nor Flower's pages have the password."""
    celery = ("celery", "-A", "convotic_celery")
    with guarded.worker("--loglevel", "DEBUG") as worker, run_flower(guarded) as flower:
        guarded.publish_json({"id": 1})
        wait_until(guarded.read_runs, what="the run")
        shown = {
            "report": run(guarded, *celery, "report"),
            "conf": run(guarded, *celery, "inspect", "conf"),
            "stats": run(guarded, *celery, "inspect", "stats"),
            "settings": run(guarded, "convotic_celery.cli", "settings"),
            "settings --json": run(guarded, "convotic_celery.cli", "settings", "--json"),
            "doctor": run(guarded, "convotic_celery.cli", "doctor", "--no-probe"),
        }
        for page in ("workers", "broker", "api/workers?refresh=1", "tasks"):
            with urlopen(f"{flower}/{page}", timeout=PATIENCE) as answer:
                shown[f"flower {page}"] = answer.read().decode()
        shown["log"] = worker.read_log()

    assert "ok       clock            the store's and this one" in shown["doctor"]
    assert "rediss://" in shown["report"]
    assert [name for name, text in shown.items() if SECRET in text] == []


def test_who_does_not_know_the_certificate_is_not_served(guarded: Stage) -> None:
    """Without the authority's certificate the store is not trusted, and the doctor says why."""
    url = guarded.environment["CONVOTIC_REDIS_URL"]
    guarded.environment["CONVOTIC_REDIS_URL"] = url.partition("?")[0]

    done = convotic(guarded, "doctor", "--no-probe")

    assert done.returncode == 1
    assert "certificate verify failed" in done.stdout
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"CONVOTIC_BROKER_URL": f"pubsub://user:{SECRET}@shop"},
        {"CONVOTIC_BROKER_URL": f"amqp://user:{SECRET}@shop//"},
        {"CONVOTIC_REDIS_URL": f"redis://:{SECRET}@localhost:six/0"},
        {"CONVOTIC_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0"},
        {"CONVOTIC_REDIS_URL": f"rediss://:{SECRET}@127.0.0.1:1/0?ssl_cert_reqs=maybe"},
        {"CONVOTIC_REDIS_URL": f"http://:{SECRET}@127.0.0.1:1/0"},
    ],
)
def test_no_error_shows_a_password(embedded_stage: Stage, environment: dict[str, str]) -> None:
    """Wrong scheme, port, option or host: what is wrong is said without the URL."""
    embedded_stage.environment |= environment

    done = convotic(embedded_stage, "doctor", "--no-probe")

    assert done.returncode in {1, 2}
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
