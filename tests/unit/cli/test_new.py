"""`convotic new`: what it writes, keeps and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convotic_celery.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that we are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command here, as a person would."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("folder")
def test_what_it_writes_loads_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """At once, in an empty folder; its module, handler and topic have the name."""
    assert main(["new", "my-shop", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    checked = run("convotic_celery.cli", "check", "--json")
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")

    assert written == [
        "modules/my_shop.py",
        "tests/test_my_shop.py",
        "pytest.ini",
        ".gitignore",
        ".vscode/launch.json",
    ]
    assert json.loads(checked.stdout)["handlers"] == 1, checked
    assert "2 passed" in tested.stdout, tested
    json.loads(Path(".vscode/launch.json").read_text())


def test_it_changes_nothing_that_exists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what is missing there; a second module keeps what the first one brought."""
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / ".gitignore").write_text("*.log\n")
    assert main(["new", "shop"]) == 0
    said = capsys.readouterr().out
    assert main(["new", "crm"]) == 0

    assert (folder / ".gitignore").read_text() == "*.log\n"
    assert not (folder / "pytest.ini").exists()
    assert "kept   pyproject.toml" in said
    needed = "asyncio_mode = auto, pythonpath = modules"
    assert f"pyproject.toml was not changed; it needs: {needed}" in said
    assert ".gitignore was not changed; it needs: .convotic/" in said
    assert main(["new", "shop"]) == 1
    assert "modules/shop.py exists already; nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("json", "is a module of Python's standard library"),
        ("redis", "is an installed package"),
        ("class", "is a keyword of Python"),
        ("my.shop", "no dots"),
        ("1shop", "a letter"),
    ],
)
def test_a_name_that_can_t_be_imported_is_refused(
    name: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the rule, before anything is written."""
    assert main(["new", name]) == 2
    assert reason in capsys.readouterr().err
    assert list(folder.iterdir()) == []
