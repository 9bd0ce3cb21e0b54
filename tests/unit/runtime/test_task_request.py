"""How the run of an ordinary task ends."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.exceptions import Reject
from kombu import Message

from convotic_celery.runtime.execution.task import ConvoticTask
from convotic_celery.runtime.worker.task_request import Rejected, TaskRequest


@pytest.mark.parametrize(
    ("reason", "kind"), [("out of stock", Rejected), (ValueError("out of stock"), ValueError)]
)
def test_what_a_task_rejects_says_why(reason: Exception | str, kind: type[Exception]) -> None:
    """While it is rejected its reason is the current error, which the transport reads."""
    app: Any = Celery(
        "plain", backend="cache+memory://", task_cls=ConvoticTask, set_as_current=False
    )

    def check() -> None: ...

    task = app.task(check, name=f"check.{kind.__name__}")

    assert task.Request == f"{TaskRequest.__module__}:{TaskRequest.__name__}"
    message: Any = Message("[[], {}, {}]", content_type="application/json")
    message.headers = {"task": task.name, "id": "1"}
    seen: list[BaseException | None] = []
    request = TaskRequest(
        message,
        app=app,
        task=task,
        decoded=True,
        body=([], {}, {}),
        headers=message.headers,
        on_reject=lambda *_: seen.append(sys.exception()),
    )
    try:
        raise Reject(reason, requeue=False)  # noqa: TRY301 - its traceback is wanted
    except Reject:
        info = ExceptionInfo()

    request.on_failure(info, return_ok=True)

    (error,) = seen
    assert type(error) is kind
    assert str(error) == "out of stock"
