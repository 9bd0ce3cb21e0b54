"""``convotic dlq`` on a terminal: what it shows of a message, and what its editor opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from convotic_celery.cli import cli
from convotic_celery.cli.columns import align, json_text
from convotic_celery.cli.dlq import changing, looking
from convotic_celery.dead_letters import DeadLetter, Match, Page
from convotic_celery.dead_letters.service import difference
from tests.unit.dead_letters.entries import make_dead_letter

#: Clears a screen, twice; the second as one character.
EVIL = "\x1b[2J\x9b2J"


class Shelf:
    """One dead letter, as the commands ask for it."""

    def __init__(self, dead: DeadLetter) -> None:
        self.dead = dead
        self.edits: list[bytes | None] = []

    def show(self, _entry: str) -> DeadLetter:
        return self.dead

    def list(self, _match: Match, **_page: Any) -> Page:
        return Page(items=[self.dead])

    def edit(self, _entry: str, data: bytes | None, **_options: Any) -> str:
        self.edits.append(data)
        return difference(self.dead.data or b"", data or b"")


def run(monkeypatch: pytest.MonkeyPatch, shelf: Shelf, *arguments: str) -> Result:
    """Run a command of ``convotic dlq`` on the shelf."""

    @contextmanager
    def opened() -> Iterator[Shelf]:
        yield shelf

    for module in (changing, looking):
        monkeypatch.setattr(module, "dead_letters", opened)
    return CliRunner().invoke(cli, ["dlq", *arguments], color=True)


@pytest.mark.parametrize("command", [("show", "1"), ("show", "1", "--json"), ("list",)])
@pytest.mark.parametrize("data", [json.dumps(EVIL, ensure_ascii=False).encode(), EVIL.encode()])
def test_what_a_message_says_does_nothing_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], data: bytes
) -> None:
    """Its data, attributes and errors are anybody's."""
    dead = make_dead_letter(
        data=data,
        edited=data,
        error_type=f"Odd{EVIL}",
        error_message=EVIL,
        stack=(EVIL,),
        all_attributes={f"a{EVIL}": EVIL},
    )

    shown = run(monkeypatch, Shelf(dead), *command)

    assert shown.exit_code == 0
    assert not {"\x1b", "\x9b"} & set(shown.stdout)
    assert "[2J" in shown.stdout


def test_json_for_a_terminal_is_the_same_json() -> None:
    """Letters stay as they are."""
    value = {"name": "Zoë", "evil": EVIL + "\x7f\u2028"}

    assert json.loads(json_text(value)) == value
    assert "Zoë" in json_text(value)
    assert json_text(EVIL).isprintable()


def test_a_cell_is_one_line() -> None:
    """A handler's error of several lines would pass for other rows."""
    assert align(("a", "b"), [("1\n2", "\t")]).splitlines() == ["a     b", "1\\n2  \\t"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": b'{"half": ', "payload": "preview"}, "only the beginning"),
        ({"data": None, "payload": "none"}, "no copy"),
        ({"data": b"\xff\x00"}, "not UTF-8"),
    ],
)
def test_the_editor_opens_only_what_it_can_save(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    """The beginning of the data, or bytes that are no text, would replace all of it."""
    monkeypatch.setattr(click, "edit", lambda *_, **__: pytest.fail("it opened"))

    refused = run(monkeypatch, shelf := Shelf(make_dead_letter(**changes)), "edit", "1")

    assert refused.exit_code == 2
    assert said in refused.output
    assert not shelf.edits


def test_the_editor_changes_what_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price keeps its digits; an edited preview is whole again; saved as it was, it is that."""
    data = b'{"total":19.90,"city":"Leeds"}'
    dead = make_dead_letter(data=b'{"tot', payload="preview", edited=data)
    shelf = Shelf(dead)

    monkeypatch.setattr(click, "edit", lambda text, **_: text.replace("Leeds", "York") + "\n")
    assert run(monkeypatch, shelf, "edit", "1").exit_code == 0
    monkeypatch.setattr(click, "edit", lambda text, **_: text + "\n")
    assert run(monkeypatch, shelf, "edit", "1").exit_code == 0

    assert shelf.edits == [b'{\n  "total": 19.90,\n  "city": "York"\n}', data]


def test_states_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ones, archived or missing?"""
    refused = run(
        monkeypatch, Shelf(make_dead_letter()), "purge", "--all", "--archived", "--missing"
    )

    assert refused.exit_code == 2
    assert "--archived" in refused.output
