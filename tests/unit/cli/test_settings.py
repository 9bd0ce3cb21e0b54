"""`convotic settings`."""

from __future__ import annotations

import json

import pytest

from convotic_celery.cli import main
from convotic_celery.cli.settings import unit_of
from convotic_celery.settings import Settings


def test_it_shows_values_and_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each variable is listed with its value, and whether the environment set it."""
    monkeypatch.setenv("CONVOTIC_BROKER_URL", "pubsub://my-project")

    assert main(["settings"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split() == ["CONVOTIC_BROKER_URL", "pubsub://my-project", "environment"]
        for line in lines
    )
    assert any(line.split() == ["CONVOTIC_ENV", "development", "default"] for line in lines)
    assert any(
        line.split() == ["CONVOTIC_PUBLISH_TIMEOUT", "60.0", "seconds", "default"] for line in lines
    )
    assert "    Seconds to wait for a publish to be confirmed." in lines


def test_it_hides_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A password in the URL of store or broker is shown nowhere."""
    monkeypatch.setenv("CONVOTIC_REDIS_URL", "redis://:hunter2@store:6379/0")
    monkeypatch.setenv("CONVOTIC_BROKER_URL", "amqp://me:hunter2/x@broker:5672")

    assert main(["settings"]) == 0
    assert main(["settings", "--json"]) == 0

    output = capsys.readouterr().out
    assert "hunter2" not in output
    assert "hunter2" not in repr(Settings())
    assert "amqp://***@broker:5672" in output
    assert "CONVOTIC_REDIS_URL" in output


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the settings by their names in Python."""
    assert main(["settings", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["env"] == "development"


def test_an_unknown_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt variable stops the command with one line that names it."""
    monkeypatch.setenv("CONVOTIC_BROKER_ULR", "pubsub://my-project")

    assert main(["settings"]) == 2

    assert "CONVOTIC_BROKER_ULR" in capsys.readouterr().err


def test_it_shows_a_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a name, or those that the environment sets."""
    monkeypatch.setenv("CONVOTIC_ENV", "staging")

    assert main(["settings", "publish_time", "--brief"]) == 0
    assert main(["settings", "--changed", "--json"]) == 0

    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:2]] == ["setting", "CONVOTIC_PUBLISH_TIMEOUT"]
    assert json.loads("".join(shown[2:])) == {"env": "staging"}


def test_each_number_of_seconds_or_bytes_has_its_unit() -> None:
    """A number without one counts something."""
    counts = {
        name
        for name, field in Settings.model_fields.items()
        if field.annotation in {int, float} and not unit_of(field)
    }

    assert {name for name in counts if "timeout" in name or "bytes" in name} == set()
    assert {Settings.model_fields[name].annotation for name in counts} == {int}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["timeoot"], "There is no setting whose name contains 'timeoot'; `convotic settings"),
        (["timeout", "--changed"], "The environment sets none whose name contains 'timeout'."),
        (["--changed"], "The environment sets none."),
    ],
)
def test_nothing_found_says_of_what(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name is not the same as a setting that the environment leaves alone."""
    assert main(["settings", *arguments]) == 0

    assert capsys.readouterr().err.startswith(said)
