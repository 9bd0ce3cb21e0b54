"""Log lines and a reader that does not read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from convotic_celery.log import UnblockedHandler
from tests.support.waiting import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe without a reader; its other end is empty rather than waited for."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def read(reading: int) -> str:
    """Return what is in the pipe now."""
    try:
        return os.read(reading, 1 << 20).decode()
    except BlockingIOError:
        return ""


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "x.py", 1, text, None, None)


def test_a_line_is_written_at_once(pipe: tuple[int, TextIO]) -> None:
    """By its caller: a process that crashes has written what it logged."""
    reading, stream = pipe
    UnblockedHandler(stream).handle(record("hello ✓"))

    assert os.read(reading, 100) == "hello ✓\n".encode()


def test_a_reader_that_does_not_read_blocks_nobody(pipe: tuple[int, TextIO]) -> None:
    """What it leaves waits, in order; too much of it is counted instead of kept."""
    reading, stream = pipe
    handler = UnblockedHandler(stream)
    for number in range(15_000):
        handler.handle(record(f"{number} {'x' * 100}"))

    text = ""

    def is_read() -> bool:
        nonlocal text
        text += read(reading)
        return not handler._waiting

    wait_until(is_read)
    handler.handle(record("the last"))
    wait_until(lambda: is_read() and "the last" in text)
    numbers = [
        int(line.split()[0]) for line in text.splitlines() if line[0].isdigit() and "x" in line
    ]
    assert numbers == sorted(numbers)
    assert len(numbers) < 15_000
    assert "log lines were dropped: whatever reads them is too slow" in text


def test_a_pipe_that_others_made_non_blocking_loses_nothing(pipe: tuple[int, TextIO]) -> None:
    """A parent in Node shares its own end of the pipe so: a long line needs several writes."""
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    line = "x" * 200_000

    UnblockedHandler(stream).handle(record(line))

    text = ""

    def is_read() -> bool:
        nonlocal text
        text += read(reading)
        return len(text) > len(line)

    wait_until(is_read)
    assert text == f"{line}\n"


def test_a_text_that_the_stream_can_t_hold_is_spelt_out() -> None:
    """A terminal of the C locale loses no line for a sign."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="ascii") as stream:
        UnblockedHandler(stream).handle(record("✓ \udce4"))

        assert os.read(reading, 100) == b"\\u2713 \\udce4\n"
    os.close(reading)


def test_a_line_that_cant_be_written_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Even while an error is handled that raises when it is looked at."""

    class Hostile(Exception):
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError(name)

    with Path(os.devnull).open("w") as stream:
        handler = UnblockedHandler(stream)
    try:
        raise Hostile  # noqa: TRY301 - it has to be under way
    except Hostile:
        handler.handle(record("lost"))

    assert "Logging error" in capsys.readouterr().err
