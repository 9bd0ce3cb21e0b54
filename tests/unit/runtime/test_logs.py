"""A worker's lines: Celery's or ours, with the fields that a handler logs."""

from __future__ import annotations

import io
import json
import logging
import uuid
from typing import Any

import pytest

from convotic_celery.app import ConvoticApp
from convotic_celery.context.logger import HandlerLogger, build_logger
from convotic_celery.log import FIELDS_ATTRIBUTE
from convotic_celery.runtime.worker.logs import WorkerLogging
from tests.unit.runtime.support import make_settings

FORMAT = "[%(levelname)s] %(message)s"


def write_line(log_format: str, *, own: logging.Handler | None = None, **fields: Any) -> str:
    """Log one line through a logger that a worker has set up; return what was written."""
    app = ConvoticApp(make_settings(log_format=log_format), [], set_as_current=False)
    assert isinstance(app.log, WorkerLogging)
    logger, stream = logging.getLogger(f"test-{uuid.uuid4().hex}"), io.StringIO()
    logger.propagate = False
    if own is not None:
        logger.addHandler(own)
    app.log.setup_handlers(logger, stream, FORMAT, False)
    logger.warning("Processing %s", "order", extra={FIELDS_ATTRIBUTE: fields})
    app.close()
    return stream.getvalue()


def test_celery_s_lines_have_the_fields() -> None:
    """Behind the message; a secret is masked."""
    assert write_line("celery", order_id=1, message_id="m-1", token="t") == (
        "[WARNING] Processing order order_id=1 message_id='m-1' token='***'\n"
    )


def test_a_line_without_fields_is_celery_s() -> None:
    """To the letter."""
    assert write_line("celery") == "[WARNING] Processing order\n"


def test_json_lines_are_written_where_they_are_asked_for() -> None:
    """CONVOTIC_LOG_FORMAT=json holds in a worker."""
    line = json.loads(write_line("json", order_id=1))

    assert (line["message"], line["order_id"], line["severity"]) == (
        "Processing order",
        1,
        "WARNING",
    )


def test_handlers_of_the_application_are_left_alone() -> None:
    """Who has set up logging keeps it."""
    stream = io.StringIO()

    assert write_line("auto", own=logging.StreamHandler(stream), order_id=1) == ""
    assert stream.getvalue() == "Processing order\n"


def test_the_context_s_logger_gives_its_fields_in_this_form(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a handler logs has the attribute that the formatter shows."""
    logger: HandlerLogger = build_logger(handler="orders.new.shop")
    with caplog.at_level(logging.INFO):
        logger.info("Processing", order_id=1)

    (record,) = caplog.records
    assert getattr(record, FIELDS_ATTRIBUTE) == {"handler": "orders.new.shop", "order_id": 1}
