"""docker-compose.yml and Dockerfile against the code; images need a Docker engine to be built."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]  # mkdocs brings it, without types

from convotic_celery.cli import cli
from convotic_celery.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document["services"], dict)
    return document["services"]


def test_it_has_worker_broker_store_and_flower(services: dict[str, Any]) -> None:
    """The four processes of a deployment."""
    assert set(services) == {"worker", "emulator", "redis", "flower"}


def test_each_variable_is_a_setting(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's environment makes valid settings with nothing embedded."""
    for name, value in services["worker"]["environment"].items():
        monkeypatch.setenv(name, value.replace("${CONVOTIC_BROKER_URL:-", "").rstrip("}"))
    monkeypatch.setenv("CONVOTIC_ENV", "production")

    Settings().refuse_embedded_where_wrong()


def test_the_emulators_command_exists(services: dict[str, Any]) -> None:
    """`convotic emulator` takes the options that the file gives it."""
    program, command, *arguments = shlex.split(services["emulator"]["command"])
    assert isinstance(cli, click.Group)
    emulator = cli.get_command(click.Context(cli), command)
    assert emulator is not None

    parsed = emulator.make_context("emulator", arguments)

    assert program == "convotic"
    assert parsed.params["host"] == "0.0.0.0"
    assert parsed.params["port"] == 8085


def test_what_the_image_copies_is_there() -> None:
    """Each path that the Dockerfile copies from the checkout exists and is not ignored."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line
                assert f"!{source}" in ignored, line
