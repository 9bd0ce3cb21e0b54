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

from convotic_celery.context.logger import HandlerLogger, build_logger, build_run_logger
from convotic_celery.log import (
    FIELDS_ATTRIBUTE,
    LINE_ATTRIBUTE,
    CloudFormatter,
    FieldsFormatter,
    Line,
    TextFormatter,
    build_formatter,
    configure_logging,
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
    """Return the lines of these tests' loggers: threads of other tests write to the root, too."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if line["logger"] in {"convotic.handler", "some.library"}]


def test_a_runs_fields_are_made_for_its_first_line(stream: io.StringIO) -> None:
    """A line below the level costs none, and what is bound to the logger has them too."""
    asked: list[int] = []

    def log_fields() -> dict[str, Any]:
        asked.append(1)
        return {"topic": "custom.a"}

    logger = build_run_logger(log_fields)
    logging.getLogger().setLevel(logging.INFO)
    logger.debug("Nothing")
    assert not asked
    logger.bind(step=1).info("One")
    logger.info("Two", order_id=7)

    assert len(asked) == 1
    first, second = lines(stream)
    assert (first["topic"], first["step"]) == ("custom.a", 1)
    assert (second["topic"], second["order_id"]) == ("custom.a", 7)
    with pytest.raises(AttributeError, match="no attribute 'inform'"):
        logger.inform  # type: ignore[attr-defined]  # noqa: B018


def test_fields_of_message_and_call_are_in_the_line(
    stream: io.StringIO, logger: HandlerLogger
) -> None:
    """A line says what happened, in which handler, to which message."""
    logger.info("Processing order", order_id=1)

    (line,) = lines(stream)
    time = line.pop("time")
    assert time.endswith("Z")
    assert line == {
        "severity": "INFO",
        "message": "Processing order",
        "logger": "convotic.handler",
        "topic": "custom.a",
        "attempt": 2,
        "order_id": 1,
        "logging.googleapis.com/labels": {"handler": "custom.a.crm", "message_id": "17"},
    }


def test_fields_may_be_a_mapping(stream: io.StringIO, logger: HandlerLogger) -> None:
    """As a second argument, the form of Convotic's TypeScript SDK."""
    logger.error("Failed to process order", {"orderId": 1, "error": "no"})  # noqa: PLE1205

    (line,) = lines(stream)
    assert (line["orderId"], line["error"], line["severity"]) == (1, "no", "ERROR")


def test_names_that_log_records_use_are_allowed(stream: io.StringIO, logger: HandlerLogger) -> None:
    """The standard library refuses them in ``extra``; the line's own get an underscore."""
    logger.info("Contact", name="Ann", message="hello", args=[1], severity="low")

    (line,) = lines(stream)
    assert (line["name"], line["message"], line["args"]) == ("Ann", "Contact", [1])
    assert (line["message_"], line["severity_"]) == ("hello", "low")


def test_bound_fields_are_in_every_line(stream: io.StringIO, logger: HandlerLogger) -> None:
    """A bound logger leaves the first one as it was."""
    logger.bind(order_id=1).warning("One %s", "late")
    logger.debug("Two")

    first, second = lines(stream)
    assert (first["message"], first["order_id"], first["severity"]) == ("One late", 1, "WARNING")
    assert "order_id" not in second


def test_exception_brings_its_traceback(stream: io.StringIO, logger: HandlerLogger) -> None:
    """In one line of JSON."""
    try:
        int("no such shop")
    except ValueError:
        logger.exception("Failed to process order")

    (line,) = lines(stream)
    assert line["stack_trace"].endswith(
        "ValueError: invalid literal for int() with base 10: 'no such shop'"
    )


def test_level_is_respected(stream: io.StringIO, logger: HandlerLogger) -> None:
    """Below the level nothing is written."""
    logging.getLogger().setLevel(logging.WARNING)

    logger.info("Processing order")

    assert lines(stream) == []


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
    assert (first["message"], first["attempt"]) == ("Called home", 2)
    assert first["logging.googleapis.com/labels"] == {"message_id": "17"}
    assert "logging.googleapis.com/labels" not in second


def test_plain_formatters_show_the_sentence(
    logger: HandlerLogger, caplog: pytest.LogCaptureFixture
) -> None:
    """Without our formatter, records are ordinary ones: Celery's own format works."""
    with caplog.at_level(logging.INFO):
        logger.info("Processing order", order_id=1)

    assert caplog.messages == ["Processing order"]


def format_text(record: logging.LogRecord, **options: Any) -> str:
    line = TextFormatter(**options).format(record)
    return re.sub(r"\d\d:\d\d:\d\d", "12:01:34", line, count=1)


def make_record(text: str, *args: object, level: int = logging.INFO, **fields: Any) -> Any:
    record = logging.LogRecord("convotic.handler", level, "x.py", 1, text, args, None)
    setattr(record, FIELDS_ATTRIBUTE, fields)
    return record


def test_text_is_for_people() -> None:
    """Time, handler and message id, the sentence, its fields; what repeats itself is left out."""
    record = make_record(
        "Processing order",
        handler="custom.a.crm",
        topic="custom.a",
        message_id="17",
        attempt=1,
        order_id=1,
    )

    assert format_text(record) == "12:01:34   custom.a.crm 17 Processing order order_id=1"


def test_text_of_a_run_has_its_sign() -> None:
    """Instead of the sentence that other formatters show; colours where there is a terminal."""
    record = make_record("crm 17 succeeded in 5 ms", handler="custom.a.crm", message_id="17")
    setattr(record, LINE_ATTRIBUTE, Line("✓", "5 ms"))

    assert format_text(record, process="celery2") == "12:01:34 celery2 ✓ custom.a.crm 17 5 ms"
    assert "\x1b[32m✓\x1b[0m" in format_text(record, colours=True)


def test_text_names_the_logger_of_others() -> None:
    """A library's, not ours and not Celery's."""
    record = make_record("hello", level=logging.WARNING)
    record.name = "shop.stock"

    assert format_text(record) == "12:01:34 ! hello (shop.stock)"


def test_a_trace_is_linked_as_cloud_logging_reads_it() -> None:
    """From the message's traceparent, in the project of the broker's URL."""
    formatter = build_formatter(Settings(log_format="json", broker_url="pubsub://shop"), None)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    line = json.loads(formatter.format(make_record("hello", traceparent=parent)))

    trace = "projects/shop/traces/0af7651916cd43dd8448eb211c80319c"
    assert line["logging.googleapis.com/trace"] == trace
    assert line["logging.googleapis.com/spanId"] == "b7ad6b7169203331"
    assert line["logging.googleapis.com/trace_sampled"] is True


def test_auto_is_json_where_nobody_reads() -> None:
    """A stream that is no terminal gets JSON lines."""
    formatter = build_formatter(Settings(), io.StringIO())

    assert json.loads(formatter.format(make_record("hello")))["message"] == "hello"


class Terminal(io.StringIO):
    """Says that somebody reads it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("settings", "stream", "is_coloured"),
    [
        ({}, Terminal(), True),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"log_format": "text"}, io.StringIO(), False),
        ({"log_format": "text", "FORCE_COLOR": "1"}, io.StringIO(), True),
    ],
)
def test_colour_is_for_terminals(
    settings: dict[str, Any], stream: io.StringIO, is_coloured: bool
) -> None:
    """Unless NO_COLOR or FORCE_COLOR say otherwise."""
    line = build_formatter(Settings(**settings), stream).format(make_record("hello"))

    assert ("\x1b[" in line) is is_coloured


def test_a_value_that_json_has_no_form_for_is_text() -> None:
    """No line is lost for it."""
    circle: dict[str, Any] = {}
    circle["self"] = circle

    line = json.loads(CloudFormatter().format(make_record("hello", circle=circle, at={1, 2})))

    assert "..." in line["circle"]


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
        else TextFormatter()
    )

    text = formatter.format(record)

    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "\\x1b[2J" in text
    _, *others = text.splitlines()
    assert "ValueError: bad" in text
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize(
    "formatter",
    [TextFormatter(), CloudFormatter(), FieldsFormatter(logging.Formatter())],
    ids=["text", "cloud", "celery"],
)
def test_one_record_does_not_fill_the_log(formatter: logging.Formatter) -> None:
    """An error may carry a document: its beginning and its end are enough."""
    error = ValueError("x" * 5_000_000 + " the end")
    record = logging.LogRecord(
        "any", logging.ERROR, __file__, 1, "failed: %r", (error,), (ValueError, error, None)
    )
    shown = formatter.format(record)

    assert len(shown) < 50_000
    assert shown.rstrip('"}').endswith("the end")
    assert "characters left out" in shown
