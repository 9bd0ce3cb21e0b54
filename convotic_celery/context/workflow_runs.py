"""A workflow's run as it is kept in the store; what changes it is in ``workflow_scripts.py``.

::

    convotic:workflow:0199...    id, name, status, error, step, step_name, input, created_at,
                                 updated_at
                                 result:reserve   {"place": 7}     JSON, one for each step done
                                 _index           its member of the indexes
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar, get_args, overload

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import from_json, to_json

from convotic_celery.context.models import Page
from convotic_celery.context.publishing import encode_json
from convotic_celery.context.typed_json import validate_json
from convotic_celery.errors import InvalidField

__all__ = [
    "KEPT_SECONDS",
    "SUMMARY_FIELDS",
    "WorkflowRun",
    "WorkflowRunSummary",
    "WorkflowStatus",
    "check_run_id",
    "check_status",
    "encode_value",
    "parse_run",
    "parse_summaries",
]

#: How long a run that has ended is kept.
KEPT_SECONDS = 30 * 24 * 3600

_MAX_ID_CHARACTERS = 200
_MAX_VALUE_BYTES = 1_000_000


ResultT = TypeVar("ResultT")
WorkflowStatus: TypeAlias = Literal["running", "completed", "failed"]


class WorkflowRunSummary(BaseModel):
    """How one run of a workflow stood when it was read."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: The workflow's.
    name: str
    status: WorkflowStatus
    #: Steps done so far; the one that is done next, counted from 0.
    step: int
    #: The step that was begun last; None before the first one was.
    step_name: str | None = None
    #: Why it failed.
    error: str | None = None
    created_at: datetime
    updated_at: datetime


class WorkflowRun(WorkflowRunSummary):
    """One run of a workflow, with its input and what its steps have returned so far."""

    input: JsonValue = None
    #: What each step has returned, by its name.
    results: dict[str, JsonValue] = Field(default_factory=dict)

    @overload
    def result(self, step: str) -> JsonValue: ...
    @overload
    def result(self, step: str, wanted: type[ResultT]) -> ResultT: ...
    def result(self, step: str, wanted: Any = None) -> Any:
        """Return what a step has returned.

        With a type that pydantic can validate, ``run.result("collect", Found)``, it returns an
        instance. Raises InvalidField if the step has not ended, if there is no such step, or if its
        result does not fit.
        """
        if step not in self.results:
            near = difflib.get_close_matches(step, self.results, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {[*self.results]}"
            raise InvalidField(f"run {self.id} has no result of step {step!r}; {hint}")
        found = self.results[step]
        if wanted is None:
            return found
        return validate_json(f"the result of the step {step!r}", to_json(found), wanted)


#: In the order in which a list of runs has them.
SUMMARY_FIELDS = tuple(WorkflowRunSummary.model_fields)


def check_run_id(run_id: str) -> str:
    """Return the id; raises InvalidField."""
    if not isinstance(run_id, str) or not 1 <= len(run_id) <= _MAX_ID_CHARACTERS:
        raise InvalidField(f"a run's id must be a string of 1 to {_MAX_ID_CHARACTERS} characters")
    return run_id


def check_status(status: str | None) -> str:
    """Return the status to look for, "" for any; raises InvalidField."""
    known = get_args(WorkflowStatus)
    if status is not None and status not in known:
        raise InvalidField(f"a run's status is one of {', '.join(known)}, not {status!r}")
    return status or ""


def encode_value(what: str, value: object) -> str:
    """Return an input or result as JSON; raises NotSerializable, or InvalidField if too large."""
    raw = encode_json(value)
    if len(raw) > _MAX_VALUE_BYTES:
        raise InvalidField(
            f"{what} has {len(raw):,} bytes, a workflow allows {_MAX_VALUE_BYTES:,}: put it into "
            "ctx.storage and pass its key"
        )
    return raw.decode()


def parse_run(flat: Iterable[str]) -> WorkflowRun | None:
    """Return the run that a hash, as a flat list of names and values, holds; None if empty."""
    values = iter(flat)
    fields: dict[str, Any] = {"results": {}}
    for name, value in zip(values, values, strict=True):
        if name.startswith("result:"):
            fields["results"][name.removeprefix("result:")] = from_json(value)
        elif not name.startswith("_"):
            fields[name] = from_json(value) if name == "input" else value
    return WorkflowRun.model_validate(fields) if "id" in fields else None


def parse_summaries(
    found: Sequence[tuple[str, Sequence[str]]], limit: int
) -> Page[WorkflowRunSummary]:
    """Return the page of runs that the store has found: each a member of the index, and values."""
    items = tuple(
        WorkflowRunSummary.model_validate(dict(zip(SUMMARY_FIELDS, values, strict=True)))
        for _, values in found[:limit]
    )
    return Page(items=items, next_cursor=found[limit - 1][0] if len(found) > limit else None)
