"""`run.result(...)`: what a step returned, as a type."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from convotic_celery.context import WorkflowRun
from convotic_celery.errors import InvalidField


class Found(BaseModel):
    place: int
    at: datetime


NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
RUN = WorkflowRun(
    id="r-1",
    name="fulfil",
    status="running",
    step=2,
    created_at=NOON,
    updated_at=NOON,
    results={"collect": {"place": 7, "at": "2026-11-27T12:00:00Z"}, "nothing": None},
)


def test_a_result_is_an_instance_of_the_type_that_is_asked_for() -> None:
    """Without one it is the JSON; null is a result."""
    assert RUN.result("collect", Found) == Found(place=7, at=NOON)
    assert RUN.result("collect") == {"place": 7, "at": "2026-11-27T12:00:00Z"}
    assert RUN.result("nothing") is None


def test_a_result_that_does_not_fit_is_named() -> None:
    """With the step and the field."""
    with pytest.raises(InvalidField, match=r"the result of the step 'collect' .* place: "):
        WorkflowRun.model_validate({**RUN.model_dump(), "results": {"collect": {}}}).result(
            "collect", Found
        )


def test_a_step_without_a_result_is_an_error() -> None:
    """A misspelt one is guessed."""
    with pytest.raises(InvalidField, match=r"'colect'; did you mean 'collect'\?"):
        RUN.result("colect")
