"""docker-compose.yml and Dockerfile against the code. test_images.py builds and runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # mkdocs brings it, without types

from convotic_celery.settings import Settings
from convotic_emulator.__main__ import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document["services"], dict)
    return document["services"]


def test_it_has_worker_broker_store_and_flower(services: dict[str, Any]) -> None:
    """The processes of a deployment; Google's emulator only where its profile is asked for."""
    assert set(services) == {"worker", "emulator", "google-emulator", "redis", "flower"}
    profiles = {name: service.get("profiles") for name, service in services.items()}
    assert {name for name, profile in profiles.items() if profile} == {"google-emulator"}


def test_each_service_is_checked(services: dict[str, Any]) -> None:
    """And what needs another waits until that is healthy."""
    assert all("healthcheck" in service for service in services.values())
    for service in services.values():
        for needed in service.get("depends_on", {}).values():
            assert needed == {"condition": "service_healthy"}


def test_each_variable_is_a_setting(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's environment makes valid settings with nothing embedded."""
    for name, value in services["worker"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    monkeypatch.setenv("CONVOTIC_ENV", "production")

    settings = Settings()

    settings.refuse_embedded_where_wrong()
    assert settings.pubsub_emulator_host == "emulator:8085"


def test_the_emulators_command_exists(services: dict[str, Any]) -> None:
    """`convotic-emulator` takes the options that the file gives it."""
    program, *arguments = shlex.split(services["emulator"]["command"])

    parsed = parse(arguments)

    assert program == "convotic-emulator"
    assert (parsed.host, parsed.port) == ("0.0.0.0", 8085)


def test_flower_asks_for_a_password(services: dict[str, Any]) -> None:
    """Its page can stop workers: without user and password the file is refused, and says why."""
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith(
        "${FLOWER_BASIC_AUTH:?"
    )
    assert services["flower"]["ports"] == ["127.0.0.1:5555:5555"]


def test_what_the_image_copies_is_there() -> None:
    """Each path that the Dockerfile copies from the checkout exists and is not ignored."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line
                assert f"!{source}" in ignored, line
