"""What all commands have in common: durations, --json, examples, completion."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from convotic_celery.cli import cli, main
from convotic_celery.cli.line_batches import read_batches
from convotic_celery.cli.options import DURATION, show_duration

#: They run until they are ended, print a document that is JSON anyway, or one line.
WITHOUT_JSON = {
    "convotic asyncapi",
    "convotic dashboard",
    "convotic dev",
    "convotic dlq export",
    "convotic emulator",
    "convotic topology export terraform",
    "convotic worker",
}


def read_commands(
    command: click.Command = cli, name: str = "convotic"
) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that does something, by its name."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from read_commands(found, f"{name} {each}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("5m", 300), ("1h30m", 5400), ("1h 30m", 5400)],
)
def test_a_duration_has_units(text: str, seconds: float) -> None:
    """Or is a number of seconds."""
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "1h30", "-", "1,5h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With how one is written."""
    with pytest.raises(click.BadParameter, match="write 90, 30s"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (5400, "1 h 30 min"), (90061, "1 d 1 h"), (-3, "0 s")],
)
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    """As people say them."""
    assert show_duration(seconds) == text


def test_each_command_that_prints_has_json() -> None:
    """Programs read what people read."""
    missing = {
        name
        for name, command in read_commands()
        if not any("--json" in parameter.opts for parameter in command.params)
    }

    assert missing - WITHOUT_JSON - {"convotic doctor"} == set()


def test_each_command_shows_how_it_is_typed() -> None:
    """With the command itself in an example."""
    missing = {name for name, command in read_commands() if not command.epilog}

    assert missing - {"convotic doctor"} == set()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("pub", "publish"), ("publish custom.or", "custom.orders.new"), ("pause c", "new.shop")],
)
def test_the_shell_completes_commands_topics_and_handlers(
    typed: str, offered: str, tmp_path: Path
) -> None:
    """By what click offers to bash, zsh and fish."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shop.py").write_text(
        "from convotic_celery import ConvoticModule, SyncConvoticContext, WorkerMessage\n"
        "module = ConvoticModule(name='shop', version='1')\n"
        "@module.worker('custom.orders.new')\n"
        "def handle(message: WorkerMessage, ctx: SyncConvoticContext) -> None: ...\n"
    )
    words = f"convotic {typed}"
    done = subprocess.run(
        [sys.executable, "-c", "from convotic_celery.cli import cli; cli(prog_name='convotic')"],
        cwd=tmp_path,
        env=os.environ
        | {
            "_CONVOTIC_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert offered in done.stdout, done
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["publish", "custom.orders"], "Nothing to publish"),
        (["publish", "custom.orders", "{}\n{}"], "for one message a line: --lines"),
        (["publish", "custom.orders", "{}", "--lines"], "--lines needs @FILE"),
        (["publish", "custom.orders", "@not-there.json"], "not-there.json can't be read"),
        (["publish", "custom.orders", "{}", "--delay", "soon"], "is not a duration"),
        (["publish", "custom.orders", "{}", "--delay", "nan"], "is not a duration"),
        (["dlq", "list", "--older-than=-5"], "is not a duration"),
        (["scheduled", "cancel", "17"], "'17' is not a schedule id"),
        (["scheduled", "lst"], "Did you mean list?"),
        (["workflows", "list", "--status", "done"], "'done' is not one of"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to type instead."""
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_lines_come_in_batches_with_their_numbers() -> None:
    """Empty lines count and are left out."""
    batches = list(read_batches(io.StringIO("a\n\nb\nc\n"), 2))

    assert batches == [[(1, "a\n"), (3, "b\n")], [(4, "c\n")]]


def test_a_slow_pipe_keeps_no_line_waiting() -> None:
    """What is there is published when nothing follows for a moment."""
    ours, theirs = os.pipe()
    with os.fdopen(ours) as file, os.fdopen(theirs, "w") as pipe:
        batches = read_batches(file, 1000)
        pipe.write("first\n")
        pipe.flush()

        assert next(batches) == [(1, "first\n")]
        pipe.close()
        assert list(batches) == []
