"""The `convotic` command: fast to answer, and plain about errors."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from kombu.exceptions import OperationalError

from convotic_celery import cli
from convotic_celery.errors import ConfigurationError, ContactNotFound
from convotic_emulator.errors import StoreError

#: Cheap to import on their own, but together they are what makes a command line slow.
HEAVY = ("celery", "kombu", "grpc", "google", "redis", "pydantic", "rich", "flower")


def test_help_imports_nothing_heavy() -> None:
    """`convotic --help` answers without loading Celery, gRPC, pydantic or Redis."""
    script = (
        "import sys\n"
        "from convotic_celery.cli import main\n"
        "code = main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[] 0"


def test_every_listed_command_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of the list can be imported and has a help of its own."""
    group = cli.cli
    assert isinstance(group, click.Group)
    names = group.list_commands(click.Context(group))

    assert {"emulator", "handlers", "publish", "worker"} <= set(names)
    assert cli.main(["--help"]) == 0
    assert "  publish   " in capsys.readouterr().out
    for name in names:
        assert cli.main([name, "--help"]) == 0
        assert f"convotic {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(ConfigurationError("CONVOTIC_ENV: no"), 2), (ContactNotFound("c-1"), 1)],
)
def test_an_expected_error_is_one_line(
    error: Exception,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Errors meant for a person print one line without a traceback; settings exit with 2."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)

    assert cli.main([]) == exit_code
    assert capsys.readouterr().err == f"convotic: {error}\n"


def test_a_broker_that_kombu_can_t_reach_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `convotic pause` gets from an unavailable broker, or an emulator with a broken file."""
    for error in (OperationalError("no Pub/Sub emulator answers"), StoreError("no data file")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli.cli, "main", fail)

        assert cli.main([]) == 1
        assert capsys.readouterr().err == f"convotic: {error}\n"


@pytest.mark.parametrize("data", ["{id: 1}", "", "NaN", '{"total": Infinity}'])
def test_what_is_no_json_is_not_published(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`convotic publish` says so before it loads or connects anything; Python's json takes NaN."""
    assert cli.main(["publish", "custom.orders.new", data]) == 2
    assert "not JSON: " in capsys.readouterr().err


def test_a_wrong_command_line_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command is refused with a usage text."""
    assert cli.main(["no-such-command"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_a_misspelt_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """With the one that is nearest."""
    assert cli.main(["handlrs"]) == 2
    assert "No such command 'handlrs'. Did you mean handlers?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["emulator", "routes"])
def test_a_port_that_can_t_be_is_a_wrong_option(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    assert cli.main([command, "--port", "99999"]) == 2
    assert "99999 is not in the range" in capsys.readouterr().err
