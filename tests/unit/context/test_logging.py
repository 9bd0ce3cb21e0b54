"""What handlers log, and how it looks."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from convotic_celery.context.logger import HandlerLogger, build_logger
from convotic_celery.log import (
    FIELDS_ATTRIBUTE,
    FieldsFormatter,
    build_formatter,
    configure_logging,
    format_handlers,
    log_fields,
)
from convotic_celery.settings import Settings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The root logger writes JSON lines here while the test runs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(Settings(log_format="json", log_level="DEBUG"), stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def logger() -> HandlerLogger:
    return build_logger(handler="custom.a.crm", topic="custom.a", message_id="17", attempt=2)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_of_message_and_call_are_in_the_line(
    stream: io.StringIO, logger: HandlerLogger
) -> None:
    """A line says what happened, in which handler, to which message."""
    logger.info("Processing order", order_id=1)

    (line,) = lines(stream)
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert line == {
        "event": "Processing order",
        "level": "info",
        "logger": "convotic.handler",
        "handler": "custom.a.crm",
        "topic": "custom.a",
        "message_id": "17",
        "attempt": 2,
        "order_id": 1,
    }


def test_fields_may_be_a_mapping(stream: io.StringIO, logger: HandlerLogger) -> None:
    """The seed's second argument."""
    logger.error("Failed to process order", {"orderId": 1, "error": "no"})  # noqa: PLE1205

    (line,) = lines(stream)
    assert (line["orderId"], line["error"], line["level"]) == (1, "no", "error")


def test_names_that_log_records_use_are_allowed(stream: io.StringIO, logger: HandlerLogger) -> None:
    """The standard library refuses them in ``extra``."""
    logger.info("Contact", name="Ann", message="hello", args=[1], module="crm")

    (line,) = lines(stream)
    assert (line["name"], line["message"], line["args"]) == ("Ann", "hello", [1])


def test_bound_fields_are_in_every_line(stream: io.StringIO, logger: HandlerLogger) -> None:
    """A bound logger leaves the first one as it was."""
    logger.bind(order_id=1).warning("One %s", "late")
    logger.debug("Two")

    first, second = lines(stream)
    assert (first["event"], first["order_id"], first["level"]) == ("One late", 1, "warning")
    assert "order_id" not in second


def test_exception_brings_its_traceback(stream: io.StringIO, logger: HandlerLogger) -> None:
    """In one line of JSON."""
    try:
        int("no such shop")
    except ValueError:
        logger.exception("Failed to process order")

    (line,) = lines(stream)
    assert line["exception"].endswith(
        "ValueError: invalid literal for int() with base 10: 'no such shop'"
    )


def test_level_is_respected(stream: io.StringIO, logger: HandlerLogger) -> None:
    """Below the level nothing is written."""
    logging.getLogger().setLevel(logging.WARNING)

    logger.info("Processing order")

    assert stream.getvalue() == ""


def test_credentials_are_masked(stream: io.StringIO, logger: HandlerLogger) -> None:
    """By the name of the field."""
    logger.info("Signed in", password="hunter2", Token="hunter2")

    assert "hunter2" not in stream.getvalue()


def test_other_loggers_get_the_fields_of_the_moment(stream: io.StringIO) -> None:
    """A library that a handler calls logs with the message's id, and no longer."""
    library = logging.getLogger("some.library")

    with log_fields(message_id="17"), log_fields(attempt=2):
        library.info("Called %s", "home")
    library.info("Later")

    first, second = lines(stream)
    assert (first["event"], first["message_id"], first["attempt"]) == ("Called home", "17", 2)
    assert "message_id" not in second


def test_plain_formatters_show_the_sentence(
    logger: HandlerLogger, caplog: pytest.LogCaptureFixture
) -> None:
    """Without our formatter, records are ordinary ones: Celery's own format works."""
    with caplog.at_level(logging.INFO):
        logger.info("Processing order", order_id=1)

    assert caplog.messages == ["Processing order"]


def test_text_is_for_people(logger: HandlerLogger) -> None:
    """One line a record, fields as name=value."""
    stream = io.StringIO()
    celerys = logging.getLogger("convotic.handler")
    handler = logging.StreamHandler(stream)
    celerys.addHandler(handler)
    celerys.setLevel(logging.INFO)
    try:
        format_handlers(celerys, Settings(log_format="text"))
        logger.info("Processing order", order_id=1)
    finally:
        celerys.removeHandler(handler)
        celerys.setLevel(logging.NOTSET)

    assert "[info     ] Processing order" in stream.getvalue()
    assert "order_id=1" in stream.getvalue()


def test_auto_is_json_where_nobody_reads() -> None:
    """A stream that is no terminal gets JSON lines."""
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "hello", None, None)

    assert json.loads(build_formatter("auto", io.StringIO()).format(record))["event"] == "hello"


def test_structlog_of_others_is_left_alone(stream: io.StringIO, logger: HandlerLogger) -> None:
    """Its global configuration belongs to the application."""
    logger.info("Processing order")

    assert not structlog.is_configured()
    assert stream.getvalue()


@pytest.mark.parametrize("is_celerys", [True, False], ids=["Celery's format", "ours"])
def test_what_a_stranger_wrote_can_t_pass_for_a_line(is_celerys: bool) -> None:
    """Escape codes are shown, not obeyed; further lines of a record are indented."""
    forged = "bad\x1b[2J\x9b31m\r\n2026-11-27 12:00:00 [info     ] Paid"
    try:
        raise ValueError(forged)  # noqa: TRY301 - its traceback is wanted
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "Failed: %s", (forged,), error)
    setattr(record, FIELDS_ATTRIBUTE, {"order": forged})
    formatter = (
        FieldsFormatter(logging.Formatter("%(levelname)s %(message)s"))
        if is_celerys
        else build_formatter("text", None)
    )

    text = formatter.format(record)

    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "\\x1b[2J" in text
    _, *others = text.splitlines()
    assert "ValueError: bad" in text
    assert all(line.startswith("  ") for line in others)
